"""Admission in a whole cluster: webhooks behind a URL and a service, quotas, legacy tokens, what others must know."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from miniplane.testing import TestCluster, clusters
from tests.e2e.node_identity import Caller, eventually

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with clusters(lambda: tmp_path_factory.mktemp("admission")) as make:
        cluster: TestCluster = make()
        yield Caller.of(cluster.kubeconfig)


@dataclass
class Webhook:
    """Labels what is created, and refuses what is called `forbidden`."""

    port: int
    bundle: str
    seen: list[JSON] = field(default_factory=list)

    def client_config(self, path: str) -> JSON:
        return {"url": f"https://localhost:{self.port}{path}", "caBundle": self.bundle}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    ca = trustme.CA()
    found = Webhook(0, base64.b64encode(ca.cert_pem.bytes()).decode())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            found.seen.append(review)
            answer: JSON = {"uid": review["uid"], "allowed": review.get("name") != "forbidden"}
            if self.path.startswith("/mutate"):
                patch = json.dumps([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}])
                answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
            if not answer["allowed"]:
                answer["status"] = {"message": "not this one", "code": 403, "reason": "Forbidden"}
            body = json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": answer})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "hook.default.svc").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def configuration(kind: str, client_config: JSON, **more: Any) -> JSON:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "DELETE"]}
    return {"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "test"}, "webhooks": [
        {"name": "test.example.com", "clientConfig": client_config, "rules": [rule], "sideEffects": "None",
         "admissionReviewVersions": ["v1"], "timeoutSeconds": 5} | more]}


def config_map(name: str) -> JSON:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}


def test_a_mutating_webhook_changes_what_is_stored(admin: Caller, webhook: Webhook) -> None:
    path = f"{CONFIGURATIONS}/mutatingwebhookconfigurations"
    made = configuration("MutatingWebhookConfiguration", webhook.client_config("/mutate"))
    assert admin.post(path, made)["code"] == 201
    try:
        assert admin.post(MAPS, config_map("labelled"))["metadata"]["labels"] == {"seen": "yes"}
        stored = admin.get(f"{MAPS}/labelled")
        assert stored["metadata"]["labels"] == {"seen": "yes"}
        assert stored["metadata"]["uid"]
    finally:
        admin("DELETE", f"{path}/test")
    assert "labels" not in admin.post(MAPS, config_map("plain"))["metadata"]


def test_a_validating_webhook_refuses_and_its_absence_is_a_refusal_unless_ignored(
        admin: Caller, webhook: Webhook) -> None:
    path = f"{CONFIGURATIONS}/validatingwebhookconfigurations"
    made = configuration("ValidatingWebhookConfiguration", webhook.client_config("/validate"))
    assert admin.post(path, made)["code"] == 201
    try:
        refused = admin.post(MAPS, config_map("forbidden"))
        assert (refused["code"], refused["message"]) == (
            403, 'admission webhook "test.example.com" denied the request: not this one')
        assert admin.post(MAPS, config_map("fine"))["code"] == 201
        assert admin("DELETE", f"{MAPS}/fine")["code"] == 200
        assert (webhook.seen[-1]["operation"], webhook.seen[-1]["object"]) == ("DELETE", None)
        gone = {"webhooks": [made["webhooks"][0] | {"clientConfig": {
            "url": "https://localhost:1/", "caBundle": webhook.bundle}}]}
        assert admin.merge(f"{path}/test", gone)["code"] == 200
        assert admin.post(MAPS, config_map("fine"))["code"] == 500
        gone["webhooks"][0]["failurePolicy"] = "Ignore"
        assert admin.merge(f"{path}/test", gone)["code"] == 200
        assert admin.post(MAPS, config_map("fine"))["code"] == 201
    finally:
        admin("DELETE", f"{path}/test")


def test_a_webhook_behind_a_service_is_reached_at_its_endpoints(admin: Caller, webhook: Webhook) -> None:
    service = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}
    assert admin.post("/api/v1/namespaces/default/services", service)["code"] == 201
    endpoints = {"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "hook"}, "subsets": [
        {"addresses": [{"ip": "10.11.12.13"}], "ports": [{"port": webhook.port}]}]}
    assert admin.post("/api/v1/namespaces/default/endpoints", endpoints)["code"] == 201
    path = f"{CONFIGURATIONS}/validatingwebhookconfigurations"
    config = {"service": {"namespace": "default", "name": "hook", "path": "/validate"}, "caBundle": webhook.bundle}
    assert admin.post(path, configuration("ValidatingWebhookConfiguration", config, timeoutSeconds=1))["code"] == 201
    try:  # nobody is at 10.11.12.13: what matters is that this is where it looked
        refused = admin.post(MAPS, config_map("served"))
        assert refused["code"] == 500
        assert "https://hook.default.svc:443/validate?timeout=1s" in refused["message"]
    finally:
        admin("DELETE", f"{path}/test")


def test_two_at_once_cannot_both_take_the_last_place(admin: Caller) -> None:
    assert admin.post("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "full"}})
    quotas, maps = "/api/v1/namespaces/full/resourcequotas", "/api/v1/namespaces/full/configmaps"
    eventually(lambda: admin.get(f"{maps}/kube-root-ca.crt")["code"] == 200)
    limits = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"}, "spec": {
        "hard": {"configmaps": "4"}}}
    assert admin.post(quotas, limits)["code"] == 201
    eventually(lambda: (admin.get(f"{quotas}/q").get("status") or {}).get("used") == {"configmaps": "1"})
    codes: list[int] = []
    threads = [threading.Thread(target=lambda n=n: codes.append(admin.post(maps, config_map(f"m{n}"))["code"]))
               for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [201] * 3 + [403] * 9
    assert admin.get(f"{quotas}/q")["status"]["used"] == {"configmaps": "4"}


def test_a_legacy_token_is_made_for_its_secret_and_dies_with_it(admin: Caller) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    body = {"kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/service-account-token", "metadata": {
        "name": "old", "annotations": {"kubernetes.io/service-account.name": "default"}}}
    assert admin.post(secrets, body)["code"] == 201
    data = eventually(lambda: (found := admin.get(f"{secrets}/old").get("data") or {}).get("token") and found)
    assert base64.b64decode(data["ca.crt"]) == admin.ca
    token = base64.b64decode(data["token"]).decode()
    holder = Caller(admin.url, admin.ca, headers={"Authorization": f"Bearer {token}"})
    me = holder.post("/apis/authentication.k8s.io/v1/selfsubjectreviews",
                     {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"})
    assert me["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    review = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {
        "token": token, "audiences": ["vault"]}}
    other = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
    assert not other.get("authenticated")  # a token without audience is for the API server only
    admin("DELETE", f"{secrets}/old")
    eventually(lambda: holder.get("/api")["code"] == 401, 15)


def test_extension_servers_find_the_front_proxys_ca(admin: Caller) -> None:
    data = admin.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]
    assert data["client-ca-file"].encode() == admin.ca
    assert data["requestheader-allowed-names"] == '["front-proxy-client"]'
    assert "BEGIN CERTIFICATE" in data["requestheader-client-ca-file"]
