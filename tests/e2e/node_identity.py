"""An API client with any identity, over real TLS, and certificates as a node gets them."""

import base64
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from certs import kubeconfig
from certs.requests import new_csr, new_key
from miniplane.testing import TestCluster

JSON = dict[str, Any]
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT_SIGNER, SERVING_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


@dataclass
class Caller:
    """One identity. Every call is a connection of its own."""

    url: str
    ca: bytes
    cert: bytes | None = None
    key: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Caller":
        found = kubeconfig.load(path).credentials()
        assert found.ca is not None
        token = {"Authorization": f"Bearer {found.token}"} if found.token else {}
        return cls(found.server, found.ca, found.client_cert, found.client_key, token)

    @classmethod
    def anonymous(cls, cluster: TestCluster, **headers: str) -> "Caller":
        admin = cls.of(cluster.kubeconfig)
        return cls(admin.url, admin.ca, headers={key.replace("_", "-"): value for key, value in headers.items()})

    @classmethod
    def with_token(cls, cluster: TestCluster, token: str) -> "Caller":
        return cls.anonymous(cluster, Authorization=f"Bearer {token}")

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode())
        if self.cert is not None and self.key is not None:
            descriptor = os.memfd_create("certificate")
            os.write(descriptor, self.cert + b"\n" + self.key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            os.close(descriptor)
        return context

    def __call__(self, method: str, path: str, body: JSON | None = None, kind: str = "application/json") -> JSON:
        """The answer with its status as `code`."""
        target = urlsplit(self.url)
        assert target.hostname
        port = target.port or 443
        connection = http.client.HTTPSConnection(target.hostname, port, context=self.context(), timeout=20)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, self.headers | {"Content-Type": kind, "Accept": "application/json"})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            found: JSON = json.loads(text)
        except ValueError:
            found = {"text": text.decode(errors="replace")}
        return found | {"code": response.status}

    def get(self, path: str) -> JSON:
        return self("GET", path)

    def post(self, path: str, body: JSON) -> JSON:
        return self("POST", path, body)

    def merge(self, path: str, body: JSON) -> JSON:
        return self("PATCH", path, body, "application/merge-patch+json")


def csr(name: str, common_name: str, key: bytes, *, signer: str = CLIENT_SIGNER, organization: str = "system:nodes",
        usages: tuple[str, ...] = ("digital signature", "client auth"), ips: tuple[str, ...] = (),
        request: bytes | None = None) -> JSON:
    pem = request if request is not None else new_csr(key, common_name, [organization], ips=ips)
    return {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": list(usages)}}


def certificate(caller: Caller, name: str, body: JSON, key: bytes) -> Caller:
    """Ask, wait for the controller manager, and be who was asked for."""
    assert caller.post(CSRS, body)["code"] == 201

    def issued() -> str | None:
        text: str | None = (caller.get(f"{CSRS}/{name}").get("status") or {}).get("certificate")
        return text

    return Caller(caller.url, caller.ca, base64.b64decode(eventually(issued)), key)


def new_node(caller: Caller, name: str) -> Caller:
    """With a bootstrap token: a node's first certificate."""
    key = new_key()
    return certificate(caller, f"first-{name}", csr(f"first-{name}", f"system:node:{name}", key), key)
