"""Issuing service account tokens.

My job: a TokenRequest for a ServiceAccount → the same with status.token (upstream
`registry/core/serviceaccount/storage/token.go`). `authentication.serviceaccount` says what the claims mean,
`certs.jwt` signs. `endpoints.subresources` calls me.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from certs.jwt import TokenSigner
from miniapiserver.authentication.serviceaccount import BoundObject, claims_for
from miniapiserver.errors import BadRequest, Conflict, Invalid, NotFound, invalid
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

DEFAULT_SECONDS = 3600
SHORTEST_SECONDS = 600
LONGEST_SECONDS = 1 << 32


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Lives as long as the server."""

    signer: TokenSigner
    issuer: str
    api_audiences: tuple[str, ...]
    objects: Objects
    clock: Clock

    def issue(self, account: JSON, review: JSON) -> JSON:
        """`review` filled in. Raises Invalid, BadRequest, NotFound, Conflict."""
        spec = review.setdefault("spec", {})
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        _check_seconds(seconds)
        metadata = account["metadata"]
        self._check_uid(review, metadata)
        audiences = tuple(spec.get("audiences") or self.api_audiences)
        claims = claims_for(account, issuer=self.issuer, audiences=audiences, api_audiences=self.api_audiences,
                            seconds=seconds, bound=self._bound(account, spec.get("boundObjectRef")),
                            now=int(self.clock.seconds()), token_id=str(uuid.uuid4()))
        spec["audiences"], spec["expirationSeconds"] = list(audiences), seconds
        spec.setdefault("boundObjectRef", None)
        review["metadata"] |= {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                               "creationTimestamp": self.clock.rfc3339()}
        promised = claims.promised - self.clock.seconds()
        review["status"] = {"token": self.signer.sign(claims.claims),
                            "expirationTimestamp": self.clock.rfc3339(promised)}
        return review

    def _check_uid(self, review: JSON, account: JSON) -> None:
        asked = review.setdefault("metadata", {}).get("uid")
        if asked and asked != account["uid"]:
            raise Conflict.resource("serviceaccounts", "", account["name"], "the UID in the token request "
                                    f"({asked}) does not match the UID of the service account ({account['uid']})")

    def _bound(self, account: JSON, reference: JSON | None) -> BoundObject | None:
        """The live object the token dies with. Raises NotFound, Conflict, BadRequest."""
        if not reference:
            return None
        kind, name = reference.get("kind", ""), reference.get("name", "")
        storage = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
        if storage is None or reference.get("apiVersion", "v1") != "v1":
            raise BadRequest(f"cannot bind token to object of type {reference.get('apiVersion', '')}, Kind={kind}")
        namespace = "" if storage == "nodes" else account["metadata"]["namespace"]
        found = self.objects.get(storage, namespace, name)
        if found is None:
            raise NotFound.resource(storage, "", name)
        uid = found["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise Conflict.resource(storage, "", name, f"the UID in the bound object reference ({reference['uid']}) "
                                    "does not match the UID in record. The object might have been deleted "
                                    "and then recreated")
        if storage == "pods" and found["spec"].get("serviceAccountName") != account["metadata"]["name"]:
            raise BadRequest(f"cannot bind token for serviceaccount \"{account['metadata']['name']}\" to pod running "
                             "with different serviceaccount name.")
        node = found["spec"].get("nodeName", "") if storage == "pods" else ""
        node_object = self.objects.get("nodes", "", node) if node else None
        return BoundObject(kind.lower(), name, uid, node, node_object["metadata"]["uid"] if node_object else "")


def _check_seconds(seconds: int) -> None:
    problem = ""
    if seconds < SHORTEST_SECONDS:
        problem = "may not specify a duration less than 10 minutes"
    elif seconds > LONGEST_SECONDS:
        problem = "may not specify a duration larger than 2^32 seconds"
    if problem:
        raise Invalid.fields("TokenRequest", "authentication.k8s.io", "",
                             [invalid("spec.expirationSeconds", seconds, problem)])
