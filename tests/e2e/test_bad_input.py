"""Bad input over real sockets: each gets a clear error of the right type, nothing hangs, and the log stays clean."""

import asyncio
import zlib

import orjson
import pytest

from miniplane.testing import TestCluster
from tests.e2e.hostile import NAMESPACE, POD, Peer, control, frame, head, upgrade

pytestmark = pytest.mark.e2e

EXEC = f"{POD}/exec?command=cat&stdin=1&stdout=1&stderr=1&container=c"
TTY = f"{EXEC}&tty=1"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
FORWARD = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
SYN = bytes([0, 0, 0, 1]) + bytes(6)
ZLIB_BOMB = zlib.compress(bytes(50_000_000), 9)


@pytest.fixture(scope="module")
def peer(miniplane_cluster: TestCluster) -> Peer:
    made = Peer.of(miniplane_cluster)
    asyncio.run(made.running_pod())
    return made


@pytest.fixture(autouse=True)
def clean_logs(miniplane_cluster: TestCluster) -> object:
    """No test here may leave a traceback behind, or anything a client sent as a credential."""
    before = {name: len(miniplane_cluster.log(name)) for name in ("miniapiserver", "node-1")}
    yield
    for name, length in before.items():
        fresh = miniplane_cluster.log(name)[length:]
        assert "Traceback" not in fresh and "hunter2" not in fresh, fresh[-3000:]


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (head("GET", "/version").replace(b"Host: h", b"Host : h"), 400),
        (head("GET", "/version", "A: b\r\n c\r\n"), 400),
        (head("GET", "/version", "Authorization : Bearer hunter2\r\n"), 400),
        (head("GET", "/version", "A: b\0c\r\n"), 400),
        (head("GET", "/version", "A: b\rc\r\n"), 400),
        (head("POST", "/api", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (head("POST", "/api", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400),
        (head("POST", "/api", "Content-Length: -1\r\n"), 400),
        (head("POST", "/api", "Transfer-Encoding: xchunked\r\n"), 400),
        (b"GET /version HTTP/1.1\r\n\r\n", 400),
        (head("GET", "/version", "Host: other\r\n"), 400),
        (b"GET /version HTTP/9.9\r\nHost: h\r\n\r\n", 400),
        (b"GET /version HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"\0\1\2\3\r\n\r\n", 400),
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (head("GET", "/" + "a" * 300_000), 431),
        (head("GET", "/version", "A: " + "a" * 300_000 + "\r\n"), 431),
        (head("GET", "/version", "A: b\r\n" * 5000), 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_is_refused_and_the_connection_ends(peer: Peer, request_bytes: bytes, code: int) -> None:
    answer = await peer.exchange(request_bytes)
    assert int(answer[9:12]) == code
    assert b"hunter2" not in answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_oversized_body_is_413_with_a_status(peer: Peer, chunked: bool) -> None:
    body = b"x" * 4_000_000
    framing = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    answer = await peer.exchange(head("POST", f"{NAMESPACE}/configmaps", "Connection: close\r\n" + framing) + sent)
    status = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    assert (answer[9:12], status["reason"], status["code"]) == (b"413", "RequestEntityTooLarge", 413)


@pytest.mark.parametrize(
    "piece",
    [
        frame(2, b"\0hi", mask=False),
        frame(2, b"\0hi", rsv=0x40),
        frame(3, b"x"),
        frame(0, b"x"),
        frame(9, b"x" * 200),
        frame(9, b"x", fin=False),
        frame(2, b"", length=1 << 62),
        frame(2, b"x" * 1000, length=40 << 20),
        b"\xff" * 3000,
        frame(8, b"\x03"),
    ],
)
@pytest.mark.parametrize("target", [EXEC, f"{POD}/attach?stdout=1&container=c"])
async def test_websocket_garbage_ends_with_a_protocol_error(peer: Peer, target: str, piece: bytes) -> None:
    status, rest, closed = await peer.stream(upgrade(target, V5), piece)
    assert (status, closed) == (101, True)
    assert rest.endswith(b"\x88\x02\x03\xea")  # close 1002


@pytest.mark.parametrize("piece", [frame(2, b""), frame(2, b"\x09x"), frame(2, b"\x01x"), b"\x82"])
async def test_odd_but_harmless_messages_are_borne(peer: Peer, piece: bytes) -> None:
    status, _, closed = await peer.stream(upgrade(EXEC, V5), piece, linger=0.3)
    assert (status, closed) == (101, False)


@pytest.mark.parametrize("resize", [b"[" * 100_000, b'{"Width":99999999999999,"Height":-5}', b"\xff"])
async def test_a_bad_resize_ends_at_most_its_own_session(peer: Peer, resize: bytes) -> None:
    status, _, _ = await peer.stream(upgrade(TTY, V5), frame(2, b"\x04" + resize), linger=0.3)
    assert status == 101


@pytest.mark.parametrize(
    "piece",
    [
        b"\xff" * 100,
        control(1, SYN, version=2),
        control(4, b"\xff" * 4),
        control(1, b"\0"),
        control(1, SYN + b"\xff" * 50),
        control(1, SYN + ZLIB_BOMB),
        control(1, b"x" * 100)[:5] + b"\xff\xff\xff" + b"x" * 2_000_000,
    ],
)
@pytest.mark.parametrize(("target", "protocol"), [(EXEC, V4), (f"{POD}/portforward", FORWARD)])
async def test_spdy_garbage_ends_the_connection(peer: Peer, target: str, protocol: str, piece: bytes) -> None:
    kubelet, server = peer.process("node-1"), peer.process("miniapiserver")
    memory = kubelet.resident + server.resident
    status, _, closed = await peer.stream(upgrade(target, protocol), piece)
    assert (status, closed) == (101, True)
    assert kubelet.resident + server.resident - memory < 16 << 20  # the bomb would be 50 MB


@pytest.mark.parametrize("piece", [b"\xff" * 100, frame(2, b"\xff" * 100), frame(2, control(1, SYN + ZLIB_BOMB))])
async def test_garbage_in_a_tunnel_ends_it(peer: Peer, piece: bytes) -> None:
    status, _, closed = await peer.stream(upgrade(f"{POD}/portforward", TUNNEL), piece)
    assert (status, closed) == (101, True)


@pytest.mark.parametrize(
    ("target", "protocol", "code"),
    [
        (EXEC, "bogus", 403),
        (f"{POD}/exec?command=ls", V5, 400),
        (EXEC.replace("container=c", "container=..%2f.."), V5, 400),
        (f"{NAMESPACE}/pods/none/exec?command=ls&stdout=1", V5, 404),
        (f"{POD}/portforward", V4, 403),
        (f"{POD}/portforward?ports=x", "v4.channel.k8s.io ", 400),
        (f"{NAMESPACE}/pods/none/portforward", TUNNEL, 404),
    ],
)
async def test_a_bad_upgrade_is_refused_before_it_begins(peer: Peer, target: str, protocol: str, code: int) -> None:
    status, _, _ = await peer.stream(upgrade(target, protocol), linger=0.2)
    assert status == code


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("tailLines=-1", 422, "must be greater than or equal to 0"),
        ("limitBytes=0", 422, "must be greater than 0"),
        ("limitBytes=99999999999999999999", 400, "value out of range"),
        ("sinceTime=yesterday", 400, "parsing time"),
        ("container=nope", 400, "container nope is not valid for pod victim"),
        ("previous=1", 400, "previous terminated container"),
        ("sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z", 422, "at most one of"),
    ],
)
async def test_bad_log_options(peer: Peer, query: str, code: int, words: str) -> None:
    answered, body = await peer.ask("GET", f"{POD}/log?{query}")
    assert (answered, body["kind"]) == (code, "Status")
    assert words in body["message"]


async def test_a_command_that_is_not_there_is_told_on_the_error_channel(peer: Peer) -> None:
    _, rest, closed = await peer.stream(upgrade(f"{POD}/exec?command=/nope&stdout=1", V5), linger=5)
    assert closed and b"no such file or directory" in rest


async def test_a_stream_without_an_upgrade_is_400(peer: Peer) -> None:
    for method in ("GET", "POST"):
        code, body = await peer.ask(method, EXEC)
        assert (code, body["message"]) == (400, "Upgrade request required")


async def test_after_all_that_a_good_session_works(peer: Peer) -> None:
    _, rest, closed = await peer.stream(upgrade(EXEC, V5), frame(2, b"\0hello"), frame(2, b"\xff\0"), linger=5)
    assert closed and b"\x01hello" in rest and b'"status":"Success"' in rest
    assert (await peer.ask("GET", "/readyz"))[0] == 200
