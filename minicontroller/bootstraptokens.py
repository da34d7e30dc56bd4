"""Bootstrap tokens: what they sign, and when they go.

My job: ConfigMap `kube-public/cluster-info`, from which a joining node learns the cluster's CA, signed once for each
token that may sign (`pkg/controller/bootstrap/bootstrapsigner.go`); and deleting tokens that have expired
(`tokencleaner.go`). kubeadm writes cluster-info at `init`; here the signer does, as it knows all that stands in it.
"""

import base64
import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from certs.discovery import signature
from minicontroller.actions import Action, After, Create, Delete, Update
from minicontroller.controller import Controller, Key
from minicontroller.informers import Informers
from wire.apiclient import resource_path
from wire.informer import Informer

JSON = dict[str, Any]

TYPE, PREFIX = "bootstrap.kubernetes.io/token", "bootstrap-token-"
PUBLIC, SYSTEM, CLUSTER_INFO = "kube-public", "kube-system", "cluster-info"
KUBECONFIG, SIGNATURE = "kubeconfig", "jws-kubeconfig-"
INFO: Key = (PUBLIC, CLUSTER_INFO)


def tokens_of(informers: Informers) -> Informer:
    return informers.of("", "v1", "secrets", fieldSelector=f"type={TYPE}")


def value(secret: Mapping[str, Any], key: str) -> str:
    """A value as text, "" when absent or not text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "").decode()
    except ValueError:
        return ""


def expires_in(secret: Mapping[str, Any], now: float) -> float | None:
    """Seconds left, None for a token without end. What cannot be read has passed."""
    text = value(secret, "expiration")
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text).timestamp() - now
    except ValueError:
        return 0.0


def signs(secret: JSON, now: float) -> bool:
    left = expires_in(secret, now)
    is_live = not secret["metadata"].get("deletionTimestamp") and (left is None or left > 0)
    named = secret["metadata"]["name"] == PREFIX + value(secret, "token-id")
    return is_live and named and value(secret, "usage-bootstrap-signing") == "true"


def kubeconfig(server: str, ca: str) -> str:
    """The smallest kubeconfig there is: one cluster without a name (kubeadm `clusterinfo.go`)."""
    data = base64.b64encode(ca.encode()).decode()
    return ("apiVersion: v1\nclusters:\n- cluster:\n"
            f"    certificate-authority-data: {data}\n    server: {json.dumps(server)}\n"
            '  name: ""\ncontexts: null\ncurrent-context: ""\nkind: Config\npreferences: {}\nusers: null\n')


class BootstrapSigner(Controller):
    name = "bootstrapsigner"

    def __init__(self, informers: Informers, clock: Callable[[], float], server: str, ca: str) -> None:
        self.content = kubeconfig(server, ca)
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.tokens = self.on(tokens_of(self.informers), lambda obj: [INFO])
        self.infos = self.on(self.informers.of("", "v1", "configmaps", fieldSelector=f"metadata.name={CLUSTER_INFO}"))
        self.queue.add(INFO)

    def plan(self, key: Key) -> Iterable[Action]:
        if key != INFO:
            return
        found = self.infos.objects.get(key)
        if found is None:
            yield Create(resource_path("", "v1", "configmaps", PUBLIC), {
                "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": CLUSTER_INFO, "namespace": PUBLIC},
                "data": self.signed({KUBECONFIG: self.content})}, exists_is_fine=True)
            return
        data = found.get("data") or {}
        if (wanted := self.signed(data)) != data:
            yield Update(resource_path("", "v1", "configmaps", PUBLIC, CLUSTER_INFO), found | {"data": wanted})
        lives = [left for secret in self.tokens.objects.values()
                 if (left := expires_in(secret, self.clock())) is not None and left > 0]
        if lives:
            yield After(min(lives))

    def signed(self, data: Mapping[str, str]) -> dict[str, str]:
        """One signature for each token that may sign, and none of others."""
        rest = {name: text for name, text in data.items() if not name.startswith(SIGNATURE)}
        content, now = rest.get(KUBECONFIG), self.clock()
        if content is None:
            return rest
        for (namespace, _), secret in self.tokens.objects.items():
            if namespace == SYSTEM and signs(secret, now):
                token_id = value(secret, "token-id")
                rest[SIGNATURE + token_id] = signature(content, token_id, value(secret, "token-secret"))
        return rest


class TokenCleaner(Controller):
    name = "tokencleaner"

    def watch(self) -> None:
        self.tokens = self.on(tokens_of(self.informers))

    def plan(self, key: Key) -> Iterable[Action]:
        secret = self.tokens.objects.get(key)
        if secret is None or key[0] != SYSTEM:
            return
        left = expires_in(secret, self.clock())
        if left is not None and left <= 0:
            yield Delete(resource_path("", "v1", "secrets", *key), secret["metadata"]["uid"])
        elif left is not None:
            yield After(left)
