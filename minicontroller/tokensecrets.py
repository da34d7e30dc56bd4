"""Service account tokens as Secrets, for those who still ask for them.

My job: fill Secrets of type `kubernetes.io/service-account-token` with a token that never expires, the cluster's CA and
the namespace; delete them when their account goes (`pkg/controller/serviceaccount/tokens_controller.go`). Nobody gets
one unasked since 1.24.
"""

import base64
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from certs.jwt import TokenSigner
from minicontroller.actions import Action, Delete, Update
from minicontroller.controller import Controller, Key, key_of
from minicontroller.informers import Informers
from wire.apiclient import NotFound, resource_path

JSON = dict[str, Any]

TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
ISSUER, CLAIM = "kubernetes/serviceaccount", "kubernetes.io/serviceaccount/"


class TokenSecrets(Controller):
    name = "tokensecrets"

    def __init__(self, informers: Informers, clock: Callable[[], float], signer: TokenSigner, ca: str) -> None:
        self.signer, self.ca = signer, ca
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.secrets = self.on(self.informers.of("", "v1", "secrets", fieldSelector=f"type={TYPE}"))
        self.accounts = self.informers.of("", "v1", "serviceaccounts")
        self.accounts.subscribe(lambda kind, new, old: self._account_changed(new or old))

    def _account_changed(self, account: JSON | None) -> None:
        for key, secret in list(self.secrets.objects.items()):
            if account is not None and (key[0], account_name(secret)) == key_of(account):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        """An account made a moment ago may be missing in our copy only: ask before its token is thrown away."""
        secret = self.secrets.objects.get(key)
        account = (key[0], account_name(secret)) if secret is not None else None
        if account is not None and account[1] and account not in self.accounts.objects:
            with contextlib.suppress(NotFound):
                await self.informers.client.get(resource_path("", "v1", "serviceaccounts", *account))
                self.queue.retry(key)
                return
        await super().sync(key)

    def plan(self, key: Key) -> Iterable[Action]:
        secret = self.secrets.objects.get(key)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            return
        account = self.accounts.objects.get((key[0], account_name(secret)))
        uid = (secret["metadata"].get("annotations") or {}).get(ACCOUNT_UID, "")
        path = resource_path("", "v1", "secrets", *key)
        if account is None or uid not in ("", account["metadata"]["uid"]):
            yield Delete(path, secret["metadata"]["uid"])
        elif (filled := self._filled(secret, account)) != secret:
            yield Update(path, filled)

    def _filled(self, secret: JSON, account: JSON) -> JSON:
        metadata, data = secret["metadata"], dict(secret.get("data") or {})
        wanted = {"ca.crt": self.ca, "namespace": metadata["namespace"]}
        data |= {name: base64.b64encode(text.encode()).decode() for name, text in wanted.items()}
        if not data.get("token"):
            data["token"] = base64.b64encode(self.signer.sign(claims(secret, account)).encode()).decode()
        annotations = (metadata.get("annotations") or {}) | {ACCOUNT_UID: account["metadata"]["uid"]}
        return secret | {"metadata": metadata | {"annotations": annotations}, "data": data}


def account_name(secret: JSON) -> str:
    return str((secret["metadata"].get("annotations") or {}).get(ACCOUNT_NAME, ""))


def claims(secret: JSON, account: JSON) -> JSON:
    """Flat, without audience and without end."""
    metadata = account["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    return {"iss": ISSUER, CLAIM + "namespace": namespace, CLAIM + "secret.name": secret["metadata"]["name"],
            CLAIM + "service-account.name": name, CLAIM + "service-account.uid": metadata["uid"],
            "sub": f"system:serviceaccount:{namespace}:{name}"}
