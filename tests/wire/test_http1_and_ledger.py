"""The strict HTTP/1.1 reader, certificates as facts, and the connection ledger."""

import asyncio
import contextlib
import hashlib
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_certificates import Certificates

from wire.connections import Ledger
from wire.errors import ConnectionLost, PeerProtocolError
from wire.http import HTTPServer
from wire.httpclient import HTTPClient, request_head
from wire.ledgerfeed import read_ledger, serve_ledger, watch_ledger
from wire.net import dial_tcp
from wire.protocol.http1 import BodyReader, Framing, framing, parse_head
from wire.protocol.x509 import read_certificate
from wire.stream import Stream, open_stream, stream_pair
from wire.tls import client_context, server_context


def feed(reader: BodyReader, data: bytes, size: int) -> bytes:
    return b"".join(piece for start in range(0, len(data), size) for piece in reader.feed(data[start : start + size]))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunked_bodies_are_read_in_any_pieces(size: int) -> None:
    reader = BodyReader(Framing.CHUNKED, 0)
    data = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\nnext"
    assert feed(reader, data, size) == b"hello world"
    assert reader.done
    assert reader.trailing == b"next"


@pytest.mark.parametrize("size", [1, 1000])
def test_bodies_of_a_length_keep_what_follows(size: int) -> None:
    reader = BodyReader(Framing.LENGTH, 5)
    assert feed(reader, b"hellonext", size) == b"hello"
    assert (reader.done, reader.trailing) == (True, b"next")


def test_unfinished_bodies_are_errors() -> None:
    for kind, length in ((Framing.CHUNKED, 0), (Framing.LENGTH, 9)):
        reader = BodyReader(kind, length)
        reader.feed(b"5\r\nhel")
        with pytest.raises(PeerProtocolError, match="unexpected EOF"):
            reader.feed_eof()
    reader = BodyReader(Framing.UNTIL_EOF, 0)
    reader.feed_eof()
    assert reader.done


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nName : x",  # CVE-2019-16276
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded",
        b"HTTP/1.1 200 OK\r\nA: b\rc",
        b"HTTP/1.1 200 OK\r\nA: b\0c",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"",
    ],
)
def test_cve_2019_16276_malformed_heads_are_refused(head: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        parse_head(head + b"\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: gzip, chunked",
    ],
)
def test_ambiguous_framing_is_refused(headers: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        framing("GET", parse_head(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n"))


def test_framing_follows_method_and_status() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert framing("GET", head) == (Framing.LENGTH, 5)
    assert framing("HEAD", head) == (Framing.NONE, 0)
    assert framing("GET", parse_head(b"HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n")) == (Framing.NONE, 0)
    assert framing("GET", parse_head(b"HTTP/1.0 200\r\n\r\n")) == (Framing.UNTIL_EOF, 0)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_gives_a_head_or_peer_protocol_error(data: bytes) -> None:
    for act in (lambda: parse_head(data), lambda: BodyReader(Framing.CHUNKED, 0).feed(data)):
        with contextlib.suppress(PeerProtocolError):
            act()


def test_request_heads_can_not_be_broken_out_of() -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/ HTTP/1.1\r\nEvil: 1", "h", [])
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", "h", [("A", "b\nc")])


# Certificates


def test_certificate_facts_are_those_of_openssl(certificates: Certificates) -> None:
    pem = Path(certificates.cert).read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n"
    facts = read_certificate(ssl.PEM_cert_to_DER_cert(pem))
    assert facts.sans == ("127.0.0.1", "localhost")
    assert facts.issuer.startswith("O=trustme")
    assert len(facts.not_after) == len("2026-01-01T00:00:00Z")


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_broken_certificates_give_facts_or_peer_protocol_error(data: bytes, position: int, value: int) -> None:
    for candidate in (data, b"0\x82\x01\x00" + data):
        broken = bytearray(candidate)
        if position < len(broken):
            broken[position] = value
        with contextlib.suppress(PeerProtocolError):
            read_certificate(bytes(broken))


# Ledger


async def test_ledger_says_what_tls_really_did(certificates: Certificates, tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * 1000)

    ledger = Ledger()
    async with HTTPServer(handler) as server, serve_ledger(ledger, tmp_path / "l.sock"):
        port = await server.listen(ssl_context=server_context(certificates.cert, certificates.key))
        streams: list[Stream] = []
        for verify in (True, False):
            entry = ledger.record(source="me", target=f"127.0.0.1:{port}", purpose="test", credentials="none")
            assert entry.state == "dialing"
            context = client_context(certificates.ca if verify else None, verify=verify)
            sock = await dial_tcp("127.0.0.1", port)
            stream = await open_stream(sock, ssl=context, server_hostname="127.0.0.1")
            entry.connected(stream, certificates.ca)
            streams.append(stream)
        streams[0].write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await streams[0].read_until(b"xxxx", 10_000)
        unverified, verified = await read_ledger(tmp_path / "l.sock")
        assert (verified["verifiedBy"], unverified["verifiedBy"]) == (certificates.ca, None)
        assert unverified["peerCertificate"]["sans"] == ["127.0.0.1", "localhost"]
        der = streams[0].get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert verified["peerCertificate"]["sha256"] == hashlib.sha256(der).hexdigest()
        assert (verified["tls"]["version"], verified["state"], verified["path"]) == ("TLSv1.3", "open", "direct")
        assert verified["bytesIn"] > 0 and verified["bytesOut"] == 27
        for stream in streams:
            await stream.aclose()
        await asyncio.sleep(0)
        assert ledger.live == 0
        assert [entry["state"] for entry in ledger.snapshot()] == ["closed", "closed"]
    assert not (tmp_path / "l.sock").exists()


async def test_failed_dials_stay_in_the_history_bounded() -> None:
    ledger = Ledger(kept=3)
    for number in range(5):
        ledger.record(source="me", target=str(number)).close(ConnectionLost("gone"))
    assert [(entry["to"], entry["state"], entry["error"]) for entry in ledger.snapshot()] == [
        (str(number), "failed", "gone") for number in (4, 3, 2)
    ]


# The client's pool


async def test_connection_that_the_server_closed_is_not_reused() -> None:
    count = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal count
        count += 1
        if request.path == "/last":
            response = web.Response(text="x")
            asyncio.get_running_loop().call_later(0.01, lambda: request.transport and request.transport.close())
            return response
        return web.Response(text=str(count))

    async with HTTPServer(handler) as server:
        port = await server.listen()

        async def connect() -> Stream:
            return await open_stream(await dial_tcp("127.0.0.1", port))

        client = HTTPClient(connect, "h")
        for target in ("/a", "/last"):
            async with await client.request("GET", target) as answer:
                await answer.read()
        await asyncio.sleep(0.1)
        async with await client.request("POST", "/b", body=b"{}") as answer:
            assert await answer.read() == b"3"
        await client.aclose()


async def test_a_watcher_hears_of_what_changes_and_of_nothing_else(tmp_path: Path) -> None:
    ledger = Ledger()
    idle, busy = await stream_pair()
    theirs, ours = await stream_pair()
    ledger.record(source="me", target="idle").connected(idle)
    entry = ledger.record(source="me", target="busy")
    entry.connected(ours)
    async with asyncio.timeout(10), serve_ledger(ledger, tmp_path / "l.sock"):
        changes = watch_ledger(tmp_path / "l.sock")
        assert {one["to"] for one in await anext(changes)} == {"idle", "busy"}
        ours.write(b"12345")
        await ours.drain()
        assert await anext(changes) == [{"id": entry.id, "bytesIn": 0, "bytesOut": 5}]
        ours.abort()
        await ours.wait_closed()
        (ended,) = await anext(changes)
        assert (ended["to"], ended["bytesOut"], ended["protection"]) == ("busy", 5, "plain")
        await changes.aclose()
    for stream in (idle, busy, theirs):
        stream.abort()


async def test_totals_by_path_and_protection_keep_what_has_ended() -> None:
    ledger = Ledger(kept=1)
    for _ in range(3):
        ledger.record(source="me", target="gone").close(ConnectionLost("refused"))
    ours, theirs = await stream_pair()
    ledger.record(source="me", target="there", path="ssh").connected(ours)
    ours.write(b"123")
    await ours.drain()
    found = {(path, protection.value): total for (path, protection), total in ledger.totals().items()}
    assert (found["direct", "none"].failed, found["ssh", "plain"].live, found["ssh", "plain"].sent) == (3, 1, 3)
    for stream in (ours, theirs):
        stream.abort()


async def test_a_ledger_is_served_below_a_path_longer_than_a_sockets_name(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with serve_ledger(Ledger(), folder / "l.sock"):
        assert await read_ledger(folder / "l.sock") == []
    assert list(folder.iterdir()) == []
