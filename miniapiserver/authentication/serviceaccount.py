"""Service account tokens: signed here, checked here.

My job: claims of a TokenRequest, and a JWT → UserInfo with the live objects it is bound to (upstream
`pkg/serviceaccount` claims.go, legacy.go). `certs.jwt` knows signatures, `registry` the objects; I
know what the claims mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any

from certs.errors import InvalidToken
from certs.jwt import TokenVerifier
from miniapiserver.authentication.bootstraptoken import decoded
from miniapiserver.authentication.interface import AuthenticationFailed, UserInfo
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

LEEWAY_SECONDS = 60.0
LEGACY_ISSUER = "kubernetes/serviceaccount"
LEGACY_CLAIM = "kubernetes.io/serviceaccount/"
#: A kubelet asks for this odd lifetime; old clients never reload the file, so the tokens live a year and warn after it.
EXTENDED_SECONDS = 3607
EXTENDED_LIFETIME = 365 * 24 * 3600
#: A label the legacy token cleaner puts on Secrets whose token nobody used for a year.
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
INVALIDATED = "service account token has been invalidated"


def username(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def groups(namespace: str) -> tuple[str, str]:
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}"


@dataclass(frozen=True, slots=True)
class BoundObject:
    """What a token dies with: `kind` is pod, secret or node. A pod's token also names the pod's node."""

    kind: str
    name: str
    uid: str
    node_name: str = ""
    node_uid: str = ""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """`expires` is what the JWT says, `promised` what the client is told: they differ for extended tokens."""

    claims: JSON
    expires: int
    promised: int


def claims_for(account: JSON, *, issuer: str, audiences: tuple[str, ...], api_audiences: tuple[str, ...],
               seconds: int, bound: BoundObject | None, now: int, token_id: str) -> TokenClaims:
    """The claims of a new token for `account` (a ServiceAccount)."""
    metadata = account["metadata"]
    private: JSON = {"namespace": metadata["namespace"],
                     "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]}}
    lifetime = seconds
    if bound is not None:
        private[bound.kind] = {"name": bound.name, "uid": bound.uid}
        if bound.kind == "pod" and bound.node_name:
            private["node"] = {"name": bound.node_name} | ({"uid": bound.node_uid} if bound.node_uid else {})
        if bound.kind == "pod" and seconds == EXTENDED_SECONDS and set(audiences) <= set(api_audiences):
            private["warnafter"] = now + seconds
            lifetime = EXTENDED_LIFETIME
    claims = {"aud": list(audiences), "exp": now + lifetime, "iat": now, "iss": issuer, "jti": token_id,
              "kubernetes.io": private, "nbf": now, "sub": username(metadata["namespace"], metadata["name"])}
    return TokenClaims(claims, now + lifetime, now + seconds)


class ServiceAccountAuthenticator:
    """Checks bound tokens of `issuers` and legacy Secret tokens. `now` is seconds since the epoch."""

    def __init__(self, verifier: TokenVerifier, issuers: tuple[str, ...], objects: Objects,
                 now: Callable[[], float], api_audiences: tuple[str, ...]) -> None:
        self._verifier, self._issuers, self._objects, self._now = verifier, issuers, objects, now
        self._api_audiences = api_audiences

    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        if token.count(".") != 2:
            return None
        try:
            claims = self._verifier.verify(token)
        except InvalidToken as error:
            raise AuthenticationFailed(f"service account token: {error}") from error
        issuer = claims.get("iss")
        if issuer == LEGACY_ISSUER:
            return self._legacy(token, claims, audiences)
        if issuer not in self._issuers:
            return None
        self._check_times(claims)
        self._check_audience(claims, audiences)
        return self._bound_user(claims)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._now()
        if not isinstance(claims.get("exp"), int | float) or now > claims["exp"] + LEEWAY_SECONDS:
            raise AuthenticationFailed("service account token has expired")
        for name in ("nbf", "iat"):
            if name in claims and (not isinstance(claims[name], int | float) or now < claims[name] - LEEWAY_SECONDS):
                raise AuthenticationFailed("service account token is not valid yet")

    def _check_audience(self, claims: Mapping[str, Any], audiences: tuple[str, ...]) -> None:
        given = claims.get("aud", [])
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not set(map(str, given)) & set(audiences):
            raise AuthenticationFailed(f"token audiences {given!r} is invalid for the target audiences {audiences!r}")

    def _bound_user(self, claims: Mapping[str, Any]) -> UserInfo:
        private = claims.get("kubernetes.io")
        account = private.get("serviceaccount") if isinstance(private, dict) else None
        if not isinstance(private, dict) or not isinstance(account, dict):
            raise AuthenticationFailed("token has no kubernetes.io claim")
        namespace, name = str(private.get("namespace", "")), str(account.get("name", ""))
        if claims.get("sub") != username(namespace, name):
            raise AuthenticationFailed("token subject does not match its service account")
        self._check_alive("serviceaccounts", namespace, name, str(account.get("uid", "")))
        extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)}
        for kind in ("secret", "pod"):
            if isinstance(ref := private.get(kind), dict):
                self._check_alive(f"{kind}s", namespace, str(ref.get("name", "")), str(ref.get("uid", "")))
        if isinstance(pod := private.get("pod"), dict):
            extra["authentication.kubernetes.io/pod-name"] = (str(pod.get("name")),)
            extra["authentication.kubernetes.io/pod-uid"] = (str(pod.get("uid")),)
        if isinstance(node := private.get("node"), dict):
            if not isinstance(pod, dict):
                self._check_alive("nodes", "", str(node.get("name", "")), str(node.get("uid", "")))
            extra["authentication.kubernetes.io/node-name"] = (str(node.get("name")),)
            if node.get("uid"):
                extra["authentication.kubernetes.io/node-uid"] = (str(node["uid"]),)
        return UserInfo(username(namespace, name), str(account.get("uid", "")), groups(namespace), extra)

    def _check_alive(self, storage: str, namespace: str, name: str, uid: str) -> JSON:
        found = self._objects.get(storage, namespace, name)
        if found is None or found["metadata"].get("uid") != uid or self._is_long_deleted(found["metadata"]):
            raise AuthenticationFailed(INVALIDATED)
        return found

    def _is_long_deleted(self, metadata: JSON) -> bool:
        """Something on its way out may say goodbye, for a minute."""
        deleted = metadata.get("deletionTimestamp")
        return deleted is not None and datetime.fromisoformat(deleted).timestamp() < self._now() - LEEWAY_SECONDS

    def _legacy(self, token: str, claims: Mapping[str, Any], audiences: tuple[str, ...]) -> UserInfo:
        namespace = str(claims.get(LEGACY_CLAIM + "namespace", ""))
        name = str(claims.get(LEGACY_CLAIM + "service-account.name", ""))
        secret_name = str(claims.get(LEGACY_CLAIM + "secret.name", ""))
        uid = str(claims.get(LEGACY_CLAIM + "service-account.uid", ""))
        if not set(audiences) & set(self._api_audiences):
            raise AuthenticationFailed("a token without audience is good for the API server only")
        secret = self._objects.get("secrets", namespace, secret_name)
        if secret is None or not compare_digest(decoded(secret, "token").encode(), token.encode()):
            raise AuthenticationFailed(INVALIDATED)
        if INVALID_SINCE in (secret["metadata"].get("labels") or {}):
            raise AuthenticationFailed("the token in secret has been marked as invalid")
        self._check_alive("serviceaccounts", namespace, name, uid)
        return UserInfo(username(namespace, name), uid, groups(namespace))

