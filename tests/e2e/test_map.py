"""`miniplane map`: who may see it, what it is told, and how it looks and feels in a real browser.

The ledgers are real ones, served as a cluster's processes serve them; the connections in them are socket pairs.
"""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from miniplane.demo.kubeletscenes import OPEN_KUBELET
from miniplane.demo.lab import lab as attacked_cluster
from miniplane.map.server import MapServer
from miniplane.state import StateDir
from tests.e2e.chromium import PROGRAM, Tab, chromium
from wire.connections import Connection, Ledger
from wire.ledgerfeed import serve_ledger
from wire.stream import Stream, stream_pair

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
#: Where screenshots go, for somebody to look at.
PICTURES = Path(os.environ.get("MAP_SCREENSHOTS", tempfile.gettempdir()))


@dataclass
class Lab:
    """A state directory with one API server's ledger, and the map over it."""

    ledger: Ledger
    server: MapServer
    streams: list[Stream] = field(default_factory=list)

    async def connect(self, target: str, purpose: str = "pods/log", **facts: Any) -> tuple[Connection, Stream]:
        ours, theirs = await stream_pair()
        self.streams += [ours, theirs]
        entry = self.ledger.record(source="kube-apiserver", target=target, purpose=purpose, **facts)
        entry.connected(ours)
        return entry, ours

    def pretend(self, target: str, tls: str | None, verified: str | None, purpose: str = "pods/log") -> Connection:
        """An entry with the TLS that a socket pair has not."""
        shown = "client certificate CN=x"
        entry = self.ledger.record(source="kube-apiserver", target=target, purpose=purpose, credentials=shown)
        entry._tls, entry._cipher, entry.verified = tls, "TLS_AES_256_GCM_SHA384", verified
        return entry


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    ledger = Ledger()
    (tmp_path / "connections").mkdir()
    socket = tmp_path / "connections" / "miniapiserver.sock"
    async with serve_ledger(ledger, socket), MapServer(StateDir(tmp_path)) as server:
        made = Lab(ledger, server)
        yield made
        for stream in made.streams:
            stream.abort()


@contextlib.asynccontextmanager
async def events(url: str) -> AsyncIterator[AsyncIterator[tuple[str, Any, int]]]:
    """Name, content and size of each event."""
    async with aiohttp.ClientSession() as session, session.get(url + "events") as answer:
        assert answer.content_type == "text/event-stream"

        async def read() -> AsyncIterator[tuple[str, Any, int]]:
            name, buffer = "", b""
            async for piece in answer.content.iter_any():
                buffer += piece
                while b"\n\n" in buffer:
                    block, _, buffer = buffer.partition(b"\n\n")
                    lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
                    if b"data" in lines:
                        name = lines.get(b"event", b"message").decode()
                        yield name, json.loads(lines[b"data"]), len(block)

        yield read()


async def test_only_who_knows_the_token_and_says_our_name_is_let_in(lab: Lab) -> None:
    url, port = lab.server.url, int(lab.server.url.split(":")[2].split("/")[0])
    async with aiohttp.ClientSession() as session:

        async def status(where: str, **headers: str) -> int:
            async with session.get(where, headers=headers) as answer:
                return answer.status

        assert await status(url) == 200
        assert await status(f"http://127.0.0.1:{port}/") == 404
        assert await status(f"http://127.0.0.1:{port}/{'x' * 32}/events") == 404
        # A page of a foreign site whose name was made to mean 127.0.0.1.
        assert await status(url, Host=f"evil.example:{port}") == 421
        async with session.get(url) as answer:
            policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'sha256-")
        assert "unsafe" not in policy


async def test_an_update_costs_the_same_however_many_are_idle(lab: Lab) -> None:
    sizes = []
    for idle in (0, 1000):
        for number in range(idle):
            lab.pretend(f"127.0.10.{number % 250}:10250", "TLSv1.3", "ca.crt")
        entry, stream = await lab.connect("127.0.10.1:10250")
        async with asyncio.timeout(20), events(lab.server.url) as stream_of_events:
            async for name, content, _ in stream_of_events:
                known = content if name == "all" else [content]
                if any(one.get("id") == entry.id for part in known for one in part.get("entries", ())):
                    break
            stream.write(b"12345")
            await stream.drain()
            _, content, size = await anext(stream_of_events)
            assert content["entries"] == [{"id": entry.id, "bytesIn": 0, "bytesOut": 5}]
            sizes.append(size - len(str(entry.id)))
        stream.abort()
    assert sizes[0] == sizes[1] < 120


async def rows(tab: Tab) -> list[str]:
    shown = "one => one.className + ' | ' + one.innerText.replace(/\\s+/g, ' ')"
    script = f"[...document.querySelectorAll('.link')].map({shown})"
    found: list[str] = await tab.evaluate(script)
    return found


@needs_browser
async def test_classes_differ_in_words_and_lines_and_news_are_read_out(lab: Lab) -> None:
    lab.pretend("127.0.10.1:10250", "TLSv1.3", "pki/ca.crt")
    async with chromium(lab.server.url) as tab:
        await tab.until("document.querySelectorAll('.link').length == 1")
        lab.pretend("127.0.10.2:10250", "TLSv1.3", None)
        await lab.connect("127.244.1.3:8080", "pods/proxy")
        await lab.connect("127.244.1.4:8080", "pods/proxy", path="konnectivity")
        await tab.until("document.querySelectorAll('.link').length == 4")
        found = await rows(tab)
        assert [row.split(" | ")[0] for row in found] == [
            "link plain", "link plain tunnel", "link unverified", "link verified",
        ]  # fmt: skip
        said = ("plain", "plain, in konnectivity", "encrypted, not verified", "verified")
        for row, words in zip(found, said, strict=True):
            assert words in row
        styles = "[...document.querySelectorAll('.link .line i')].map(one => getComputedStyle(one).borderTopStyle)"
        assert await tab.evaluate(styles) == ["dotted", "dotted", "dashed", "solid"]
        assert "plain: kube-apiserver to" in await tab.evaluate("document.getElementById('news').textContent")
        await tab.screenshot(PICTURES / "map.png")
        assert tab.console == []


@needs_browser
async def test_it_is_used_by_keyboard_alone(lab: Lab) -> None:
    lab.pretend("127.0.10.1:10250", "TLSv1.3", "pki/ca.crt")
    lab.pretend("127.0.10.2:10250", "TLSv1.3", "pki/ca.crt")
    async with chromium(lab.server.url) as tab:
        await tab.until("document.querySelectorAll('.link').length == 2")
        await tab.press("Tab")
        await tab.press("Tab")
        await tab.press("ArrowDown")
        await tab.press("Enter")
        expanded = "[...document.querySelectorAll('.link > button')].map(one => one.getAttribute('aria-expanded'))"
        assert await tab.evaluate(expanded) == ["false", "true"]
        assert "verified by pki/ca.crt" in " ".join((await rows(tab))[1].split())
        await tab.press("Escape")
        assert await tab.evaluate(expanded) == ["false", "false"]
        unnamed = "[...document.querySelectorAll('button')].filter(one => !one.hidden && !one.innerText.trim()).length"
        assert await tab.evaluate(unnamed) == 0


@needs_browser
async def test_a_thousand_connections_are_painted_within_a_second_and_stay_readable(lab: Lab) -> None:
    for number in range(1000):
        lab.pretend(f"127.0.10.{number % 100}:10250", "TLSv1.3", "pki/ca.crt" if number % 100 else None)
    began = time.monotonic()
    async with chromium(lab.server.url) as tab:
        started = time.monotonic() - began
        await tab.until("document.querySelectorAll('.link').length >= 60")
        await tab.until("performance.getEntriesByName('first-contentful-paint').length == 1")
        painted = await tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        # Chromium itself needs a moment on a busy machine: its own clock starts with the page.
        assert painted < 1000, (painted, started)
        assert "990 verified" in await tab.evaluate("document.querySelector('nav').innerText")
        assert "show 39 more" in await tab.evaluate("document.getElementById('lists').innerText")
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        await tab.screenshot(PICTURES / "map-thousand-dark.png")


@needs_browser
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="the lab drives a real kubectl")
@pytest.mark.parametrize(("verified", "kind"), [(False, "stranger"), (True, "refused")])
async def test_the_attacker_is_red_while_the_lab_runs(verified: bool, kind: str) -> None:
    running = attacked_cluster(verified, kubelet=OPEN_KUBELET)
    cluster = await asyncio.to_thread(running.__enter__)
    try:
        await asyncio.to_thread(cluster.start_pod, "shop", "--image=miniplane.local/ticker")
        async with MapServer(cluster.state) as server, chromium(server.url) as tab:
            await tab.until("document.querySelectorAll('.link.verified').length > 0")
            cluster.attacker.attack()
            await asyncio.to_thread(cluster.run, "logs", "shop")
            await tab.until(f"document.querySelectorAll('.link.{kind}').length > 0")
            await tab.evaluate(f"document.querySelector('.link.{kind} > button').click()")
            shown = await tab.evaluate(f"document.querySelector('.link.{kind}').innerText")
            assert "Mallory's certificate authority" in shown
            await tab.screenshot(PICTURES / f"map-{kind}.png")
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
