"""What the core answers, whatever is sent: the right Status and headers, a connection that goes on or ends."""

import asyncio
import gzip
import http.client
import re
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import orjson
import pytest
import pytest_asyncio
from filters_server import ADMIN, CONFIGMAPS, NAMESPACE, NOBODY, Server, config_map, serving
from hypothesis import given
from hypothesis import strategies as st

from miniapiserver.endpoints.responses import WARNINGS_TOTAL, shortened, warning_header
from miniapiserver.filters import parse_duration

PODS = f"{NAMESPACE}/pods"
TOKEN = f"Authorization: Bearer {ADMIN}\r\n"
YAML_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
MERGE, JSON_PATCH, STRATEGIC, APPLY = (f"application/{name}" for name in (
    "merge-patch+json", "json-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"))  # fmt: skip


#: One server for all: what is tested here leaves nothing behind that another test could stumble over.
module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving(tmp_path_factory.mktemp("filters")) as made:
        yield made


def head(method: str, target: str, headers: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{TOKEN}{headers}\r\n".encode("latin-1")


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        (f"{PODS}?limit=x", 400, "BadRequest"),
        (f"{PODS}?limit=99999999999999999999", 400, "BadRequest"),
        (f"{PODS}?watch=1&timeoutSeconds=x", 400, "BadRequest"),
        (f"{PODS}?resourceVersion=x", 400, "BadRequest"),
        (f"{PODS}?resourceVersion=99999999999999999999999", 400, "BadRequest"),
        (f"{PODS}?resourceVersion=99999&limit=1", 504, "Timeout"),
        (f"{PODS}?continue=abc", 400, "BadRequest"),
        (f"{PODS}?labelSelector=a+in+(", 400, "BadRequest"),
        (f"{PODS}?fieldSelector=x", 400, "BadRequest"),
        (f"{PODS}?fieldSelector=spec.nope=1", 400, "BadRequest"),
        (f"{PODS}?resourceVersionMatch=foo", 422, "Invalid"),
        (f"{PODS}?timeout=x", 400, "BadRequest"),
        (f"{PODS}/%zz", 400, "BadRequest"),
        (f"{PODS}/%", 400, "BadRequest"),
        (f"{PODS}/%00", 404, "NotFound"),
        (f"{PODS}/%2e%2e%2fx", 404, "NotFound"),
        (f"{PODS}/x/%70roxy", 404, "NotFound"),
        (f"{PODS}/../x", 404, "NotFound"),
        ("/api/v1/nope", 404, "NotFound"),
        ("/apis/apps/v9/deployments", 404, "NotFound"),
        (f"{PODS}/x/nope", 404, "NotFound"),
        (f"{NAMESPACE}/nodes", 404, "NotFound"),
    ],
)
@module_loop
async def test_a_bad_path_or_query_is_a_status(server: Server, path: str, code: int, reason: str) -> None:
    answer = orjson.loads((await server.raw(head("GET", path))).partition(b"\r\n\r\n")[2])
    assert (answer["kind"], answer["status"], answer["code"], answer["reason"]) == ("Status", "Failure", code, reason)


@pytest.mark.parametrize(
    ("body", "media_type", "code"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[" * 1_000_000, "application/json", 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "application/json", 400),
        (b'{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"\xff"}}', "application/json", 400),
        (b'{"kind":"Pod","apiVersion":"v1"}', "application/json", 400),
        (b'{"kind":1,"apiVersion":[],"metadata":"x"}', "application/json", 400),
        (b'{"kind":"ConfigMap","apiVersion":"v1","metadata":null}', "application/json", 422),
        (b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"../../x"}}', "application/json", 422),
        (b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: b}\n" + YAML_BOMB, "application/yaml", 400),
        (b"[" * 100_000, "application/yaml", 400),
        (b"data: &a {x: *a}\n", "application/yaml", 400),
        (b"!!python/object/apply:os.system [id]", "application/yaml", 400),
        (b"k8s\0" + b"\xff" * 100, "application/vnd.kubernetes.protobuf", 400),
        (b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "application/vnd.kubernetes.protobuf", 400),
        (b"\n\x02v1", "application/vnd.kubernetes.protobuf", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "multipart/form-data", 415),
    ],
)
@module_loop
async def test_a_bad_body_is_a_status_and_quickly(server: Server, body: bytes, media_type: str, code: int) -> None:
    begun = time.monotonic()
    answer = await server.ask("POST", CONFIGMAPS, body, Content_Type=media_type)
    assert (answer.code, answer.body["kind"], answer.body["code"]) == (code, "Status", code)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("body", "media_type", "codes"),
    [
        (b"{}", "application/json", {415}),
        (b"[]", MERGE, {400}),
        (b'{"metadata":null}', MERGE, {400}),
        (b'{"metadata":"x"}', MERGE, {422}),
        (b'{"kind":"Pod"}', MERGE, {422, 400}),
        (b"{}", JSON_PATCH, {400}),
        (b'[{"op":"remove","path":"/metadata"}]', JSON_PATCH, {400}),
        (b'[{"op":"x"}]', JSON_PATCH, {422}),
        (b'[{"op":"remove","path":""}]', JSON_PATCH, {400, 422}),
        (b"[" + b",".join([b'{"op":"test","path":"/kind","value":1}'] * 10_001) + b"]", JSON_PATCH, {413}),
        (b'{"metadata":{"$setElementOrder/finalizers":5}}', STRATEGIC, {400, 422}),
        (b"[]", APPLY, {400}),
        (YAML_BOMB, APPLY, {400}),
        (b'{"metadata":{"resourceVersion":"1"}}', MERGE, {409}),
        (b'{"metadata":{"uid":"other"}}', MERGE, {409}),
        (b'{"metadata":{"name":"other"}}', MERGE, {400}),
    ],
)
@module_loop
async def test_a_bad_patch_is_a_status_and_changes_nothing(
    server: Server, body: bytes, media_type: str, codes: set[int]
) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("victim"))
    before = await server.get(f"{CONFIGMAPS}/victim")
    answer = await server.ask("PATCH", f"{CONFIGMAPS}/victim?fieldManager=m", body, Content_Type=media_type)
    assert answer.code in codes and answer.body["kind"] == "Status"
    assert (await server.get(f"{CONFIGMAPS}/victim")).body == before.body


@pytest.mark.parametrize("grace", ["-1", "9223372036854775807"])
@module_loop
async def test_no_grace_is_too_odd_for_a_delete(server: Server, grace: str) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("odd"))
    assert (await server.ask("DELETE", f"{CONFIGMAPS}/odd?gracePeriodSeconds={grace}")).code == 200
    pod = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": f"odd{grace}"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    }
    assert (await server.ask("POST", PODS, pod)).code == 201
    assert (await server.ask("DELETE", f"{PODS}/odd{grace}?gracePeriodSeconds={grace}")).code in (200, 422)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@module_loop
async def test_a_body_beyond_the_limit_is_413_as_a_status(server: Server, method: str, chunked: bool) -> None:
    path = CONFIGMAPS if method == "POST" else f"{CONFIGMAPS}/x"
    body = b" " * (3 * 1024 * 1024 + 1)
    sent = head(
        method,
        path,
        "Content-Type: application/merge-patch+json\r\n"
        + ("Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"),
    )
    sent += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    answer = await server.raw(sent)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "RequestEntityTooLarge"


@module_loop
async def test_a_body_at_the_limit_is_read(server: Server) -> None:
    body = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"big"}}'
    sent = head("POST", f"{CONFIGMAPS}?dryRun=All", f"Content-Length: {3 * 1024 * 1024}\r\n") + body.ljust(
        3 * 1024 * 1024
    )
    assert (await server.raw(sent)).startswith(b"HTTP/1.1 201 ")


@module_loop
async def test_a_client_that_waits_to_be_invited_is(server: Server) -> None:
    body = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"invited"}}'
    answer = await server.raw(
        head("POST", CONFIGMAPS, f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n") + body
    )
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


@module_loop
async def test_a_client_whose_body_is_too_large_is_not_invited(server: Server) -> None:
    answer = await server.raw(head("POST", CONFIGMAPS, "Expect: 100-continue\r\nContent-Length: 99999999\r\n"))
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("HEAD", "/version", 200),
        ("HEAD", "/healthz", 200),
        ("HEAD", PODS, 405),
        ("HEAD", f"{PODS}?watch=1", 405),
        ("OPTIONS", PODS, 405),
        ("TRACE", PODS, 405),
        ("OPTIONS", "*", 404),
        ("CONNECT", "h:443", 404),
        ("POST", "/version", 405),
        ("PUT", PODS, 405),
        ("POST", f"{PODS}/p/log", 405),
        ("GET", "https://h/version", 200),
        ("GET", "//version", 404),
    ],
)
@module_loop
async def test_methods_and_targets_nobody_serves(server: Server, method: str, path: str, code: int) -> None:
    answer = await server.raw(head(method, path))
    assert int(answer[9:12]) == code
    if method == "HEAD":
        assert answer.endswith(b"\r\n\r\n")


@module_loop
async def test_a_bad_bearer_is_401_and_never_anonymous(server: Server) -> None:
    for path in ("/version", "/healthz", CONFIGMAPS, "/nope"):
        for token in ("wrong", "eyJhbGciOiJub25lIn0.e30."):
            answer = await server.ask("GET", path, token=token)
            assert (answer.code, answer.reason, answer.body["message"]) == (401, "Unauthorized", "Unauthorized")
    assert (await server.ask("GET", "/version", token="")).code == 200  # without one: anonymous, who may see this


@module_loop
async def test_what_a_user_may_not_do_is_403_and_says_so(server: Server) -> None:
    answer = await server.ask("GET", CONFIGMAPS, token=NOBODY)
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert (
        'User "nobody" cannot list resource "configmaps" in API group "" in the namespace "default"'
        in answer.raw.decode().replace("\\", "")
    )
    assert (await server.get(CONFIGMAPS)).code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Impersonate_User": "bob"}, 403),
        ({"Impersonate_Group": "system:masters"}, 400),
        ({"Impersonate_Uid": "1"}, 400),
        ({"Impersonate_User": "bob", "Impersonate_Group": "system:masters"}, 200),
    ],
)
@module_loop
async def test_impersonation(server: Server, headers: dict[str, str], code: int) -> None:
    assert (await server.get(CONFIGMAPS, **headers)).code == code
    assert (await server.ask("GET", CONFIGMAPS, token=NOBODY, **headers)).code == (403 if code != 400 else 400)


@module_loop
async def test_unknown_fields_become_warnings_that_fit_a_head(server: Server) -> None:
    few = config_map("few") | {"spec\u0000\r\n": 1, "two": 2}
    answer = await server.ask("POST", f"{CONFIGMAPS}?dryRun=All", few)
    assert answer.headers.getall("Warning") == [
        '299 - "unknown field \\"spec   \\""',
        '299 - "unknown field \\"two\\""',
    ]
    many = config_map("many") | {f"field{number:0100}": 1 for number in range(5000)}
    answer = await server.ask("POST", f"{CONFIGMAPS}?dryRun=All", many)
    assert answer.code == 201 and sum(map(len, answer.headers.getall("Warning"))) < WARNINGS_TOTAL + 2000
    assert "Warning" not in (await server.ask("POST", f"{CONFIGMAPS}?dryRun=All&fieldValidation=Ignore", few)).headers


@given(st.text())
def test_no_warning_breaks_a_head(text: str) -> None:
    assert re.fullmatch(r'299 - "(?:[^"\\\x00-\x1f\x7f]|\\["\\])*"', warning_header(text))
    assert len(shortened([text] * 5)) == 1


@module_loop
async def test_every_answer_has_its_headers(server: Server) -> None:
    answer = await server.get(CONFIGMAPS, Audit_ID="abc")
    assert (answer.headers["Audit-Id"], answer.headers["Cache-Control"]) == ("abc", "no-cache, private")
    assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 5
    assert int(answer.headers["Content-Length"]) == len(answer.raw)


@module_loop
async def test_large_answers_are_compressed_for_who_takes_it(server: Server) -> None:
    for number in range(3):
        await server.ask("POST", CONFIGMAPS, config_map(f"large{number}") | {"data": {"k": "v" * 50_000}})

    async def body(headers: str) -> tuple[bytes, bytes]:
        before, _, after = (await server.raw(head("GET", CONFIGMAPS, headers))).partition(b"\r\n\r\n")
        return before, after

    plain_head, plain = await body("")
    packed_head, packed = await body("Accept-Encoding: gzip\r\n")
    assert b"Content-Encoding" not in plain_head and b"Content-Encoding: gzip" in packed_head
    assert len(packed) < len(plain) // 10 and gzip.decompress(packed) == plain
    small = (await server.raw(head("GET", f"{NAMESPACE}/pods", "Accept-Encoding: gzip\r\n"))).partition(b"\r\n\r\n")[0]
    assert b"Content-Encoding" not in small


@module_loop
async def test_connections_are_kept_or_closed_as_asked(server: Server) -> None:
    def twice() -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        codes = []
        for path, token in ((CONFIGMAPS, ADMIN), ("/nope", ADMIN), (CONFIGMAPS, "wrong")):
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            socket = connection.sock
            response = connection.getresponse()
            response.read()
            codes.append(response.status)
            assert connection.sock is socket and socket is not None  # kept
        connection.request("GET", CONFIGMAPS, headers={"Connection": "close"})
        assert connection.getresponse().headers["Connection"] == "close"
        connection.close()
        return codes

    assert await asyncio.to_thread(twice) == [200, 404, 401]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("0", 0.0),
        ("1.5h", 5400.0),
        ("", None),
        ("x", None),
        ("1", None),
        ("-1s", None),
        ("1..5s", None),
        (".s", None),
        ("s", None),
    ],
)
def test_durations_are_go_s(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
