"""The kubelet's endpoint with real processes and real TLS."""

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import pytest
from endpointpods import pod
from kubeletfakes import eventually
from yarl import URL

from certs.authority import Authority

JSON = dict[str, Any]
SLEEP = ("sh", "-c", "sleep 1000")


async def get(kubelet: Any, path: str, code: int = 200) -> str:
    url = URL(kubelet.url + path, encoded=True)  # as it stands: no dots resolved, nothing quoted
    async with kubelet.apiserver() as client, client.get(url) as answer:
        body = await answer.text()
        assert answer.status == code, body
        return body


async def test_logs_of_an_ended_container_are_served(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", "sh", "-c", "echo one; echo two >&2"), "Succeeded")
    assert sorted((await get(kubelet, "/containerLogs/default/p/c")).split()) == ["one", "two"]
    assert await get(kubelet, "/containerLogs/default/p/c?limitBytes=3") in ("one", "two")
    assert await get(kubelet, "/containerLogs/default/p/c?tailLines=0") == ""
    stamped = await get(kubelet, "/containerLogs/default/p/c?tailLines=1&timestamps=true")
    assert stamped.startswith("20") and "Z " in stamped


async def test_a_followed_log_ends_with_its_container(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", "sh", "-c", "echo begin; sleep 0.3; echo end"))
    assert await get(kubelet, "/containerLogs/default/p/c?follow=true") == "begin\nend\n"


@pytest.mark.parametrize(("path", "code", "words"), [
    ("/containerLogs/default/nobody/c", 404, 'pod "nobody" does not exist'),
    ("/containerLogs/default/p/x", 404, 'container "x" not found in pod "p"'),
    ("/containerLogs/default/p/c?previous=true", 400, 'previous terminated container "c" in pod "p" not found'),
    ("/containerLogs/default/p/c?tailLines=x", 400, '{"message": "Unable to decode query."}'),
    ("/containerLogs/default/p/c?tailLines=-1", 422, '{"message": "Invalid request."}'),
    ("/containerLogs/default/p/c?sinceSeconds=0", 422, '{"message": "Invalid request."}'),
    ("/containerLogs/default/p/c?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422,
     '{"message": "Invalid request."}'),
    ("/exec/default/nobody/c?command=x&output=1", 404, "pod does not exist"),
    ("/exec/default/p/uid-other/c?command=x&output=1", 404, "pod not found"),
    ("/exec/default/p/x?command=x&output=1", 500, 'container not found ("x")'),
    ("/exec/default/p/c?command=x", 400, "you must specify at least 1 of stdin, stdout, stderr"),
    ("/exec/default/p/c?command=x&output=1", 500, "Upgrade request required"),
    ("/exec/default/p/c?command=x&output=true", 400, "you must specify at least 1 of stdin, stdout, stderr"),
    ("/attach/default/p/x?output=1", 500, "container x not found in pod p_default"),
    ("/portForward/default/nobody", 404, "pod does not exist"),
    ("/portForward/default/p", 500, "Upgrade request required"),
    ("/nothing", 404, "404: Page Not Found"),
    ("/run/default/p/c?cmd=x", 405, "405: Method Not Allowed"),
    ("/spec/", 404, "404: Page Not Found"),
    ("/logs/../kubeconfig", 400, "invalid URL path\n"),
    ("//exec/default/p/c?command=x&output=1", 404, "404: Page Not Found"),
    ("/logs/%2e%2e/%2e%2e/kubeconfig", 400, None),
])
async def test_refusals_are_upstreams(kubelet: Any, path: str, code: int, words: str | None) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    body = await get(kubelet, path, code)
    assert words is None or body == words


async def test_an_image_that_cannot_be_had_is_why_there_is_no_log(kubelet: Any) -> None:
    kubelet.api.put_pod(pod("p", container={"image": "nowhere.example/none", "command": []}))
    await eventually(lambda: kubelet.api.pod("p")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                     == "ErrImagePull")
    assert await get(kubelet, "/containerLogs/default/p/c", 400) == (
        'container "c" in pod "p" is waiting to start: image can\'t be pulled')


async def test_previous_logs_are_those_of_the_run_before(kubelet: Any) -> None:
    counting = "if [ -e /v/1 ]; then echo second; sleep 1000; fi; touch /v/1; echo first; exit 1"
    await kubelet.run_pod(pod("p", "sh", "-c", counting, restartPolicy="OnFailure",
                              volumes=[{"name": "v", "emptyDir": {}}],
                              container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))
    await eventually(lambda: kubelet.api.pod("p")["status"]["containerStatuses"][0]["restartCount"] == 1)
    await eventually(lambda: kubelet.api.pod("p")["status"]["containerStatuses"][0]["state"].get("running"))
    assert await get(kubelet, "/containerLogs/default/p/c?previous=true") == "first\n"


async def open_exec(kubelet: Any, client: Any, path: str) -> Any:
    return await client.ws_connect(path, protocols=["v5.channel.k8s.io"])


async def channels(socket: Any) -> dict[int, bytes]:
    got: dict[int, bytes] = {}
    async for message in socket:
        got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    return got


async def test_exec_gives_output_and_exit_code(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    command = "command=sh&command=-c&command=echo+out;+echo+err+>%262;+exit+7"
    async with kubelet.apiserver() as client:
        got = await channels(await open_exec(kubelet, client, f"/exec/default/p/c?{command}&output=1&error=1"))
    assert (got[1], got[2]) == (b"out\n", b"err\n")
    status = orjson.loads(got[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_exec_stdin_ends_with_the_close_of_its_channel(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    async with kubelet.apiserver() as client:
        socket = await open_exec(kubelet, client, "/exec/default/p/c?command=cat&input=1&output=1")
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        got = await channels(socket)
    assert got[1] == b"hello"
    assert orjson.loads(got[3])["status"] == "Success"


async def test_exec_of_a_missing_program_is_an_internal_error(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    async with kubelet.apiserver() as client:
        got = await channels(await open_exec(kubelet, client, "/exec/default/p/c?command=no-such&output=1"))
    status = orjson.loads(got[3])
    assert status["reason"] == "InternalError"
    assert status["message"].startswith("Internal error occurred: error executing command in container: ")


async def test_a_client_that_leaves_ends_its_command(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    async with kubelet.apiserver() as client:
        socket = await open_exec(
            kubelet, client, "/exec/default/p/c?command=sh&command=-c&command=echo+up;+sleep+900&output=1")
        while b"up" not in (await socket.receive()).data:
            pass
        await socket.close()
    async with kubelet.apiserver() as client:
        for _ in range(100):
            async with client.get("/stats/summary") as answer:
                summary = await answer.json()
            if summary["pods"][0]["process_stats"]["process_count"] <= 3:
                break
            await asyncio.sleep(0.05)
        got = await channels(await open_exec(
            kubelet, client, "/exec/default/p/c?command=sh&command=-c&command=ps+ax+|+grep+-c+'[s]leep+900'&output=1"))
    assert got[1].strip() in (b"0", b"")


async def test_attach_sees_what_the_container_writes_from_now_on(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", "sh", "-c", "read line; echo got $line; exit 0", container={"stdin": True}))
    async with kubelet.apiserver() as client:
        socket = await client.ws_connect("/attach/default/p/c?input=1&output=1", protocols=["v5.channel.k8s.io"])
        await socket.send_bytes(b"\x00word\n")
        got = await channels(socket)
    assert got[1] == b"got word\n"
    assert orjson.loads(got[3])["status"] == "Success"


async def test_run_answers_with_the_output(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    async with kubelet.apiserver() as client:
        async with client.post("/run/default/p/c?cmd=echo+hi+there") as answer:
            assert (answer.status, await answer.text()) == (200, "hi there\n")
        async with client.post("/run/default/p/c?cmd=false") as answer:
            assert answer.status == 500


async def test_port_forward_reaches_a_port_of_the_pod(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    address = kubelet.api.pod("p")["status"]["podIP"]

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, address, 0)
    port = server.sockets[0].getsockname()[1]
    async with kubelet.apiserver() as client, client.ws_connect(
            f"/portForward/default/p?port={port}", protocols=["v4.channel.k8s.io"]) as socket:
        assert [(await socket.receive()).data[:1] for _ in range(2)] == [b"\0", b"\1"]
        await socket.send_bytes(b"\0hello")
        assert (await socket.receive()).data == b"\0HELLO"
    server.close()
    await server.wait_closed()


async def test_a_port_nobody_listens_on_is_an_error_on_the_error_channel(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    async with kubelet.apiserver() as client, client.ws_connect(
            "/portForward/default/p?port=1", protocols=["v4.channel.k8s.io"]) as socket:
        got = await channels(socket)
    assert b"error forwarding port 1 to pod p, uid uid-p: " in got[1] and b"connection refused" in got[1]


async def test_pods_and_running_pods_are_lists(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    pods = orjson.loads(await get(kubelet, "/pods"))
    assert (pods["kind"], pods["items"][0]["metadata"]["name"]) == ("PodList", "p")
    assert pods["items"][0]["status"]["phase"] == "Running"
    running = orjson.loads(await get(kubelet, "/runningpods/"))
    assert running["items"][0]["spec"]["containers"][0]["name"] == "c"


async def test_stats_and_metrics_show_the_container(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", *SLEEP))
    summary = orjson.loads(await get(kubelet, "/stats/summary"))
    assert summary["pods"][0]["podRef"]["name"] == "p"
    assert summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"] > 0
    assert "kubelet_running_pods 1" in await get(kubelet, "/metrics")
    assert 'pod="p"' in await get(kubelet, "/metrics/resource")
    assert 'container="c"' in await get(kubelet, "/metrics/cadvisor")
    await get(kubelet, "/metrics/probes")


async def test_healthz_and_configz(kubelet: Any) -> None:
    assert await get(kubelet, "/healthz") == "ok"
    assert "[+]ping ok" in await get(kubelet, "/healthz?verbose")
    assert await get(kubelet, "/healthz/syncloop") == "ok"
    await get(kubelet, "/healthz/none", 404)
    assert orjson.loads(await get(kubelet, "/configz"))["kubeletconfig"]["authorization"]["mode"] == "Webhook"


# Who may


async def test_without_credentials_nothing_is_served(kubelet: Any) -> None:
    async with kubelet.client(None) as client, client.get("/pods") as answer:
        assert (answer.status, await answer.text()) == (401, "Unauthorized")


@pytest.mark.parametrize("flags", [["--anonymous-auth=true", "--authorization-mode=AlwaysAllow"]])
async def test_without_credentials_everything_is_served_where_that_is_switched_on(kubelet: Any) -> None:
    async with kubelet.client(None) as client, client.get("/pods") as answer:
        assert answer.status == 200


async def test_a_certificate_of_another_ca_is_no_credential(kubelet: Any) -> None:
    stranger = Authority.create("kubernetes", datetime.now(UTC))
    pair = kubelet.certificate("kube-apiserver-kubelet-client", ("system:masters",), stranger)
    async with kubelet.client(pair) as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get("/pods") as answer:
                await answer.read()


async def test_a_serving_certificate_is_no_client_certificate(kubelet: Any) -> None:
    pair = kubelet.certificate("kube-apiserver-kubelet-client", usages=("digital signature", "server auth"))
    async with kubelet.client(pair) as client:
        try:
            async with client.get("/pods") as answer:
                assert answer.status == 401
        except aiohttp.ClientError:
            pass  # OpenSSL may end the handshake itself


async def test_the_api_server_is_asked_for_every_subresource_and_remembered(kubelet: Any) -> None:
    asked: list[JSON] = []

    def allow(spec: JSON) -> bool:
        asked.append(spec)
        return bool(spec["resourceAttributes"]["subresource"] == "proxy")

    kubelet.api.allow = allow
    await get(kubelet, "/pods")
    await get(kubelet, "/pods")
    assert [spec["resourceAttributes"]["subresource"] for spec in asked] == ["pods", "proxy"]
    assert asked[0]["user"] == "kube-apiserver-kubelet-client"
    assert asked[0]["groups"] == ["system:authenticated"]
    assert asked[0]["resourceAttributes"] == {
        "verb": "get", "group": "", "version": "v1", "resource": "nodes", "subresource": "pods", "name": "node-1",
        "namespace": ""}


async def test_who_is_denied_reads_upstreams_words(kubelet: Any) -> None:
    kubelet.api.allow = lambda spec: False
    assert await get(kubelet, "/healthz", 403) == (
        "Forbidden (user=kube-apiserver-kubelet-client, verb=get, resource=nodes, "
        "subresource(s)=[healthz proxy])\n")


async def test_exec_by_websocket_needs_create_although_it_is_a_get(kubelet: Any) -> None:
    kubelet.api.allow = lambda spec: spec["resourceAttributes"]["verb"] == "get"
    assert "verb=create" in await get(kubelet, "/exec/default/p/c?command=x&output=1", 403)
    await get(kubelet, "/containerLogs/default/nobody/c", 404)


async def test_an_authorizer_that_cannot_be_asked_is_an_error(kubelet: Any) -> None:
    kubelet.api.fail_next = [("subjectaccessreviews", 500)] * 1
    assert (await get(kubelet, "/metrics", 500)).startswith("Authorization error (user=kube-apiserver")


async def test_a_bearer_token_is_reviewed_once_and_remembered(kubelet: Any) -> None:
    kubelet.api.token_reviews["good"] = {"authenticated": True, "user": {"username": "jane", "groups": ["dev"]}}
    async with kubelet.client(None, Authorization="Bearer good") as client:
        for _ in range(2):
            async with client.get("/healthz") as answer:
                assert answer.status == 200
    assert sum(path.endswith("tokenreviews") for _, path, _ in kubelet.api.requests) == 1


async def test_a_bad_bearer_token_is_never_anonymous(kubelet: Any) -> None:
    async with kubelet.client(None, Authorization="Bearer bad") as client, client.get("/healthz") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("flags", [["--anonymous-auth=true"]])
async def test_a_bad_bearer_token_is_refused_even_where_anonymous_is_allowed(kubelet: Any) -> None:
    async with kubelet.client(None, Authorization="Bearer bad") as client, client.get("/healthz") as answer:
        assert answer.status == 401
    async with kubelet.client(None) as client, client.get("/healthz") as answer:
        assert answer.status == 200


async def test_a_bearer_token_may_come_as_a_subprotocol(kubelet: Any) -> None:
    kubelet.api.token_reviews["good"] = {"authenticated": True, "user": {"username": "jane"}}
    await kubelet.run_pod(pod("p", *SLEEP))
    token = base64.urlsafe_b64encode(b"good").decode().rstrip("=")
    async with kubelet.client(None) as client:
        socket = await client.ws_connect(
            "/exec/default/p/c?command=true&output=1",
            protocols=["v5.channel.k8s.io", f"base64url.bearer.authorization.k8s.io.{token}"])
        assert orjson.loads((await channels(socket))[3])["status"] == "Success"


@pytest.mark.parametrize("flags", [["--authorization-mode=AlwaysAllow"]])
async def test_always_allow_asks_nobody(kubelet: Any) -> None:
    kubelet.api.allow = lambda spec: False
    await get(kubelet, "/healthz")
    assert not any(path.endswith("subjectaccessreviews") for _, path, _ in kubelet.api.requests)


async def test_the_node_is_registered_ready_with_its_address_and_port(kubelet: Any) -> None:
    node = kubelet.api.get("/api/v1/nodes", "node-1")
    conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
    assert conditions["Ready"] == "True" and conditions["MemoryPressure"] == "False"
    assert {"type": "InternalIP", "address": "127.0.97.1"} in node["status"]["addresses"]
    assert node["status"]["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
    assert node["spec"]["podCIDR"] == "127.244.97.0/24"
    lease = await eventually(lambda: kubelet.api.get(
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "node-1"))
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


@pytest.fixture
def open_ports(unused_tcp_port_factory: Any) -> tuple[int, int]:
    return unused_tcp_port_factory(), unused_tcp_port_factory()


class TestPlainPorts:
    """The read-only port and the health port."""

    @pytest.fixture
    def flags(self, open_ports: tuple[int, int]) -> list[str]:
        return [f"--read-only-port={open_ports[0]}", f"--healthz-port={open_ports[1]}"]

    async def test_the_read_only_port_shows_and_changes_nothing(
            self, kubelet: Any, open_ports: tuple[int, int]) -> None:
        async with aiohttp.ClientSession(f"http://127.0.97.1:{open_ports[0]}") as client:
            for path, code in (("/pods", 200), ("/healthz", 200), ("/metrics", 200), ("/stats/summary", 200),
                               ("/exec/default/p/c?command=x&output=1", 405), ("/logs/", 405),
                               ("/containerLogs/default/p/c", 405), ("/runningpods/", 405), ("/configz", 404)):
                async with client.get(path) as answer:
                    assert answer.status == code, path

    async def test_the_health_port_serves_health_only(self, kubelet: Any, open_ports: tuple[int, int]) -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{open_ports[1]}") as client:
            async with client.get("/healthz") as answer:
                assert await answer.text() == "ok"
            async with client.get("/pods") as answer:
                assert answer.status == 404


async def test_bytes_of_a_secret_reach_the_process_as_they_are(kubelet: Any) -> None:
    kubelet.api.put("/api/v1/namespaces/default/secrets", {
        "metadata": {"name": "s"}, "data": {"k": base64.b64encode(b"\xff\x01\xc3").decode()}})
    container = {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
    await kubelet.run_pod(pod("p", "sh", "-c", 'printf "%s" "$X" | od -An -tx1', container=container), "Succeeded")
    assert (await get(kubelet, "/containerLogs/default/p/c")).split() == ["ff", "01", "c3"]
