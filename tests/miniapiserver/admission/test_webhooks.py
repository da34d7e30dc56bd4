"""Admission webhooks over real HTTPS: what they see, what their answers do, and what happens without one."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import trustme
from admission_world import TABLE, Stored, asked, creation, pod
from aiohttp import web

from miniapiserver.admission.interface import Attributes, Operation
from miniapiserver.admission.review import Denied
from miniapiserver.admission.webhookclient import WebhookClient
from miniapiserver.admission.webhookrules import Matcher
from miniapiserver.admission.webhooks import (
    MUTATING,
    VALIDATING,
    MutatingAdmissionWebhook,
    ValidatingAdmissionWebhook,
    Webhooks,
)
from miniapiserver.egress.selector import EgressSelector
from miniapiserver.errors import BadRequest, InternalError
from wire.http import HTTPServer

JSON = dict[str, Any]
PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["*"], "scope": "*"}


def patch(*operations: JSON) -> JSON:
    return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(operations)).decode()}


@dataclass
class Server:
    """A webhook server: `answers` by path; everything it was asked is in `seen`."""

    ca: trustme.CA
    port: int = 0
    answers: dict[str, Callable[[JSON], JSON]] = field(default_factory=dict)
    seen: list[JSON] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.paths.append(request.raw_path)
        if request.path == "/elsewhere":
            return web.Response(status=307, headers={"Location": f"https://localhost:{self.port}/yes"})
        if request.path == "/slow":
            await asyncio.sleep(30)
        review = orjson.loads(await request.read())["request"]
        self.seen.append(review)
        body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                "response": {"uid": review["uid"]} | self.answers[request.path](review)}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    def webhook(self, path: str, **more: Any) -> JSON:
        bundle = base64.b64encode(self.ca.cert_pem.bytes()).decode()
        return {"name": f"{path.strip('/')}.example.com", "rules": [PODS], "failurePolicy": "Fail",
                "sideEffects": "None", "timeoutSeconds": 5, "namespaceSelector": {}, "objectSelector": {},
                "clientConfig": {"url": f"https://localhost:{self.port}{path}", "caBundle": bundle}} | more


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    ca = trustme.CA()
    found = Server(ca, answers={"/yes": lambda review: {"allowed": True}, "/no": lambda review: {"allowed": False}})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "hook.ns.svc").configure_cert(context)
    async with HTTPServer(found.handle) as http:
        found.port = await http.listen("localhost", 0, context)
        yield found


def world(storage: str, *webhooks: JSON, more: dict[tuple[str, str, str], JSON] | None = None) -> Stored:
    return Stored({("namespaces", "", "ns"): {"metadata": {"name": "ns", "labels": {"team": "blue"}}},
                   (storage, "", "w"): {"metadata": {"name": "w"}, "webhooks": list(webhooks)}} | (more or {}))


async def mutate(stored: Stored, attributes: Attributes) -> None:
    client = WebhookClient(stored, EgressSelector())
    try:
        await MutatingAdmissionWebhook(Webhooks(stored, Matcher(stored, TABLE), client)).admit(attributes)
    finally:
        await client.aclose()


async def validate(stored: Stored, attributes: Attributes) -> None:
    client = WebhookClient(stored, EgressSelector())
    try:
        await ValidatingAdmissionWebhook(Webhooks(stored, Matcher(stored, TABLE), client)).validate(attributes)
    finally:
        await client.aclose()


async def test_a_webhook_sees_who_writes_what(server: Server) -> None:
    await validate(world(VALIDATING, server.webhook("/yes")), creation("pods", pod()))
    review = server.seen[0]
    assert server.paths == ["/yes?timeout=5s"]
    assert (review["operation"], review["name"], review["namespace"]) == ("CREATE", "p", "ns")
    assert review["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert review["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert review["userInfo"] == {"username": "ada", "groups": ["devs", "system:authenticated"]}
    assert (review["object"], review["oldObject"], review["dryRun"]) == (pod(), None, False)


async def test_a_refusal_carries_the_webhooks_own_words_and_code(server: Server) -> None:
    server.answers["/no"] = lambda review: {"allowed": False, "status": {"message": "not today", "code": 403,
                                                                         "reason": "Forbidden"}}
    with pytest.raises(Denied) as error:
        await validate(world(VALIDATING, server.webhook("/no")), creation("pods", pod()))
    assert error.value.status()["message"] == 'admission webhook "no.example.com" denied the request: not today'
    assert (error.value.code, error.value.reason) == (403, "Forbidden")
    server.answers["/no"] = lambda review: {"allowed": False}
    with pytest.raises(Denied, match="without explanation"):
        await validate(world(VALIDATING, server.webhook("/no")), creation("pods", pod()))


async def test_warnings_reach_the_client(server: Server) -> None:
    server.answers["/yes"] = lambda review: {"allowed": True, "warnings": ["old image"]}
    attributes = creation("pods", pod())
    await validate(world(VALIDATING, server.webhook("/yes")), attributes)
    assert attributes.warnings == ["old image"]


async def test_each_mutating_webhook_sees_what_those_before_it_did(server: Server) -> None:
    server.answers["/one"] = lambda review: patch({"op": "add", "path": "/metadata/labels", "value": {"a": "1"}})
    server.answers["/two"] = lambda review: patch({"op": "add", "path": "/metadata/labels/b", "value": "2"})
    one = pod()
    metadata = one["metadata"]
    await mutate(world(MUTATING, server.webhook("/one"), server.webhook("/two")), creation("pods", one))
    assert one["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert one["metadata"] is metadata  # others hold on to it
    assert server.seen[1]["object"]["metadata"]["labels"] == {"a": "1"}


async def test_a_webhook_is_asked_once_more_when_a_later_one_changed_the_object(server: Server) -> None:
    server.answers["/late"] = lambda review: patch({"op": "add", "path": "/metadata/labels", "value": {"a": "1"}})
    again = server.webhook("/yes", reinvocationPolicy="IfNeeded")
    await mutate(world(MUTATING, again, server.webhook("/late")), creation("pods", pod()))
    assert [path.split("?")[0] for path in server.paths] == ["/yes", "/late", "/yes"]
    server.paths.clear()
    await mutate(world(MUTATING, server.webhook("/yes"), server.webhook("/late")), creation("pods", pod()))
    assert [path.split("?")[0] for path in server.paths] == ["/yes", "/late"]


async def test_a_server_with_another_ca_is_not_believed(server: Server) -> None:
    server.answers["/yes"] = lambda review: {"allowed": True}
    bundle = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    wrong = server.webhook("/yes")
    wrong["clientConfig"]["caBundle"] = bundle
    with pytest.raises(InternalError, match=r'failed calling webhook "yes.example.com"'):
        await validate(world(VALIDATING, wrong), creation("pods", pod()))
    assert server.seen == []


async def test_a_server_with_another_name_is_not_believed(server: Server) -> None:
    wrong = server.webhook("/yes")
    wrong["clientConfig"]["url"] = f"https://127.0.0.1:{server.port}/yes"
    with pytest.raises(InternalError):
        await validate(world(VALIDATING, wrong), creation("pods", pod()))
    assert server.seen == []


async def test_every_connection_to_a_webhook_is_in_the_ledger(server: Server) -> None:
    stored, attributes = world(VALIDATING, server.webhook("/yes")), creation("pods", pod())
    client = WebhookClient(stored, EgressSelector())
    try:
        await ValidatingAdmissionWebhook(Webhooks(stored, Matcher(stored, TABLE), client)).validate(attributes)
        [entry] = client.ledger.snapshot()
    finally:
        await client.aclose()
    assert (entry["purpose"], entry["path"], entry["verifiedBy"]) == (
        "admission webhook localhost", "direct", "clientConfig.caBundle")


async def test_a_redirect_is_not_followed(server: Server) -> None:
    with pytest.raises(InternalError, match="answered 307"):
        await validate(world(VALIDATING, server.webhook("/elsewhere")), creation("pods", pod()))
    assert len(server.paths) == 1


async def test_no_answer_in_time_is_a_failure_unless_the_policy_ignores_it(server: Server) -> None:
    slow = server.webhook("/slow", timeoutSeconds=0.2)
    with pytest.raises(InternalError, match="context deadline exceeded"):
        await validate(world(VALIDATING, slow), creation("pods", pod()))
    await validate(world(VALIDATING, slow | {"failurePolicy": "Ignore"}), creation("pods", pod()))


@pytest.mark.parametrize("answer", [{"uid": "other", "allowed": True}, {"allowed": True, "patch": "x"},
                                    {"allowed": True, "patch": "!!", "patchType": "JSONPatch"}])
async def test_nonsense_is_no_answer(server: Server, answer: JSON) -> None:
    server.answers["/odd"] = lambda review: answer
    with pytest.raises(InternalError):
        await mutate(world(MUTATING, server.webhook("/odd")), creation("pods", pod()))


async def test_a_dry_run_asks_nobody_who_would_do_something(server: Server) -> None:
    dry = creation("pods", pod(), dry_run=True)
    with pytest.raises(BadRequest, match=r'admission webhook "yes.example.com" does not support dry run'):
        await validate(world(VALIDATING, server.webhook("/yes", sideEffects="Some")), dry)
    await validate(world(VALIDATING, server.webhook("/yes")), dry)
    assert [item["dryRun"] for item in server.seen] == [True]


@pytest.mark.parametrize(("more", "is_asked"), [
    ({}, True), ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, True),
    ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, False),
    ({"objectSelector": {"matchLabels": {"x": "y"}}}, False),
    ({"rules": [PODS | {"operations": ["UPDATE"]}]}, False), ({"rules": [PODS | {"resources": ["*"]}]}, True),
    ({"rules": [PODS | {"resources": ["pods/*"]}]}, True), ({"rules": [PODS | {"resources": ["*/status"]}]}, False),
    ({"rules": [PODS | {"apiGroups": ["apps"]}]}, False), ({"rules": [PODS | {"scope": "Cluster"}]}, False)])
async def test_rules_and_selectors_choose(server: Server, more: JSON, is_asked: bool) -> None:
    await validate(world(VALIDATING, server.webhook("/yes", **more)), creation("pods", pod()))
    assert bool(server.seen) == is_asked


async def test_a_label_taken_off_does_not_hide_a_write(server: Server) -> None:
    old = pod()
    old["metadata"]["labels"] = {"x": "y"}
    chosen = server.webhook("/yes", objectSelector={"matchLabels": {"x": "y"}})
    await validate(world(VALIDATING, chosen), asked(Operation.UPDATE, "pods", pod(), old))
    assert len(server.seen) == 1


async def test_equivalent_versions_are_shown_as_the_rule_names_them(server: Server) -> None:
    scaler = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {
        "name": "h", "namespace": "ns"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}}}
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"],
            "operations": ["*"]}
    attributes = creation("autoscaling/horizontalpodautoscalers", scaler, version="v2")
    await validate(world(VALIDATING, server.webhook("/yes", rules=[rule])), attributes)
    assert server.seen[0]["object"]["apiVersion"] == "autoscaling/v1"
    assert server.seen[0]["requestKind"]["version"] == "v2"
    exact = server.webhook("/yes", rules=[rule], matchPolicy="Exact")
    await validate(world(VALIDATING, exact), attributes)
    assert len(server.seen) == 1


async def test_a_service_is_reached_at_its_endpoints_under_its_name(server: Server) -> None:
    more: dict[tuple[str, str, str], JSON] = {
        ("services", "ns", "hook"): {"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "tls", "port": 443}]}},
        ("endpoints", "ns", "hook"): {"metadata": {"name": "hook"}, "subsets": [{
            "addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "tls", "port": server.port}]}]}}
    bundle = server.webhook("/yes")["clientConfig"]["caBundle"]
    service = {"namespace": "ns", "name": "hook", "path": "yes", "port": 443}
    hook = server.webhook("/yes", clientConfig={"service": service, "caBundle": bundle})
    await validate(world(VALIDATING, hook, more=more), creation("pods", pod()))
    assert len(server.seen) == 1
    with pytest.raises(InternalError, match='service "hook" not found'):
        await validate(world(VALIDATING, hook), creation("pods", pod()))


async def test_webhook_configurations_themselves_are_shown_to_nobody(server: Server) -> None:
    everything = server.webhook("/no", rules=[{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
                                               "operations": ["*"], "scope": "*"}])
    own = {"metadata": {"name": "w"}, "webhooks": []}
    resource = "admissionregistration.k8s.io/validatingwebhookconfigurations"
    await validate(world(VALIDATING, everything), asked(Operation.DELETE, resource, None, own))
    with pytest.raises(Denied):
        await validate(world(VALIDATING, everything), asked(Operation.DELETE, "pods", None, pod()))
