"""The audit log: who asked for what, what came of it, and at which stage."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from filters_server import ADMIN, CONFIGMAPS, NAMESPACE, NOBODY, Server, config_map, serving

from miniapiserver.audit import Policy
from miniapiserver.auditevent import Level
from miniapiserver.config import ConfigError
from miniapiserver.errors import Expired
from miniapiserver.watchcache import Watch

SECRETS = f"{NAMESPACE}/secrets"


async def lines(server: Server, uri: str) -> list[dict[str, Any]]:
    """What is logged of a request of this URI, once the writer has had its turn; empty if nothing comes."""
    for _ in range(50):
        found = [line for line in server.audit_lines() if line["requestURI"] == uri]
        if found and found[-1]["stage"] == "ResponseComplete":
            return found
        await asyncio.sleep(0.01)
    return []


async def test_an_entry_says_who_what_where_and_what_came_of_it(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("seen"), User_Agent="test/1.0", Audit_ID="my-id")
    (line,) = await lines(server, CONFIGMAPS)
    assert (line["auditID"], line["stage"], line["verb"], line["level"]) == (
        "my-id",
        "ResponseComplete",
        "create",
        "Metadata",
    )
    assert (line["user"]["username"], line["userAgent"], line["sourceIPs"]) == ("admin", "test/1.0", ["127.0.0.1"])
    assert line["responseStatus"]["code"] == 201 and "requestObject" not in line
    assert line["objectRef"] == {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}
    assert line["annotations"]["authorization.k8s.io/decision"] == "allow"


async def test_refused_credentials_are_logged_without_a_user(server: Server) -> None:
    assert (await server.ask("GET", f"{CONFIGMAPS}/a", token="wrong")).code == 401
    (line,) = await lines(server, f"{CONFIGMAPS}/a")
    assert (line["responseStatus"]["code"], line["user"].get("username", "")) == (401, "")


async def test_a_denied_request_says_forbid(server: Server) -> None:
    assert (await server.ask("GET", f"{CONFIGMAPS}/b", token=NOBODY)).code == 403
    (line,) = await lines(server, f"{CONFIGMAPS}/b")
    assert line["annotations"]["authorization.k8s.io/decision"] == "forbid"


async def test_an_impersonated_request_names_both(server: Server) -> None:
    answer = await server.get(f"{CONFIGMAPS}/c", Impersonate_User="bob", Impersonate_Group="devs")
    assert (answer.code, '"bob"' in answer.body["message"]) == (403, True)
    (line,) = await lines(server, f"{CONFIGMAPS}/c")
    assert line["user"]["username"] == "admin"
    assert line["impersonatedUser"]["username"] == "bob" and "devs" in line["impersonatedUser"]["groups"]


async def test_a_watch_has_started_when_its_head_is_out(server: Server) -> None:
    uri = f"{CONFIGMAPS}?watch=1&timeoutSeconds=1"
    await server.get(uri)
    found = await lines(server, uri)
    assert [(line["stage"], line["responseStatus"]["code"]) for line in found] == [
        ("ResponseStarted", 200), ("ResponseComplete", 200)]  # fmt: skip


async def test_a_stream_that_is_refused_never_started_with_200(server: Server) -> None:
    uri = f"{NAMESPACE}/pods/none/log"
    assert (await server.get(uri)).code == 404
    found = await lines(server, uri)
    assert [(line["stage"], line["responseStatus"]["code"]) for line in found] == [
        ("ResponseStarted", 404), ("ResponseComplete", 404)]  # fmt: skip


async def test_a_client_that_left_is_499(server: Server) -> None:
    uri = f"{CONFIGMAPS}?resourceVersion=999999"  # waits three seconds for a future that does not come
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.get(uri), 0.1)
    (line,) = await lines(server, uri)
    assert line["responseStatus"]["code"] == 499


async def test_bytes_that_are_no_text_are_written_all_the_same(server: Server) -> None:
    answer = await server.raw(
        b"GET /version?a=%ff HTTP/1.1\r\nHost: h\r\nUser-Agent: \xff\xfe\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (await lines(server, "/version?a=%ff"))[0]["userAgent"]


async def test_objects_are_logged_at_the_levels_that_say_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("""
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [list]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, namespaces: [default]}
""")
    async with serving(tmp_path, audit_policy_file=policy) as server:
        await server.get(f"{CONFIGMAPS}")
        secret = {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "s"},
            "stringData": {"password": "hunter2"},
        }
        assert (await server.ask("POST", SECRETS, secret)).code == 201
        await server.ask("POST", f"{CONFIGMAPS}?x=1", config_map("logged"))
        (full,) = await lines(server, f"{CONFIGMAPS}?x=1")
        assert full["requestObject"]["metadata"]["name"] == full["responseObject"]["metadata"]["name"] == "logged"
        assert not await lines(server, "/nothing")
    text = (tmp_path / "audit.log").read_text()
    assert "hunter2" not in text and '"verb":"list"' not in text


async def test_neither_logs_nor_audit_hold_tokens_or_bodies(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await server.ask(
        "POST",
        SECRETS,
        {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}},
    )
    await server.ask("POST", SECRETS, b'{"password": "hunter2"')
    await server.raw(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer " + ADMIN.encode() + b"\r\n\r\n")
    await server.ask("GET", SECRETS, token="wrong-token-hunter2")
    await lines(server, SECRETS)
    audit = (server.folder / "audit.log").read_text()
    for secret in ("hunter2", ADMIN):
        assert secret not in caplog.text and secret not in audit


async def test_an_answer_that_breaks_is_cut_off_and_not_continued(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Watch) -> Any:
        raise Expired("gone in the middle")

    monkeypatch.setattr(Watch, "batch", broken)
    answer = b""
    try:
        token = f"Authorization: Bearer {ADMIN}\r\n".encode()
        answer = await server.raw(b"GET /api/v1/nodes?watch=1 HTTP/1.1\r\nHost: h\r\n" + token + b"\r\n")
    except ConnectionError:
        pass
    assert answer.count(b"HTTP/1.1") <= 1 and b"0\r\n\r\n" not in answer


async def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--audit-log-path"):
        async with serving(tmp_path, audit_log_path=str(tmp_path / "no" / "audit.log")):
            pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_full_disk_stops_the_log_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, audit_log_path="/dev/full") as server:
        for _ in range(5):
            assert (await server.get(CONFIGMAPS)).code == 200
        await asyncio.sleep(0.05)
        assert server.parts.server.audit is not None and server.parts.server.audit.dropped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kind: Pod",
        "kind: Policy\napiVersion: v1",
        "[",
        "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Everything}]",
    ],
)
def test_a_policy_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy").write_text(text)
    with pytest.raises(ConfigError, match="--audit-policy-file"):
        Policy.read(tmp_path / "policy")


def test_the_default_policy_logs_metadata() -> None:
    assert Policy().rules[0].level is Level.METADATA
