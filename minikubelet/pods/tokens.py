"""Service account tokens for pods: asked for by TokenRequest, kept until they are 80 % old.

My job: one token per (pod, service account, audience, lifetime). I own the cache. Neighbours: the volumes ask through
the pod's worker. Rule: while a refresh fails, the old token serves until it expires (upstream pkg/kubelet/token).
"""

import random
from dataclasses import dataclass
from typing import Any

from minikubelet.clock import Clock, parse_rfc3339
from minikubelet.runtime.interface import PodRef
from wire.apiclient import APIError, Client, resource_path
from wire.errors import WireError

JSON = dict[str, Any]

MAX_AGE = 24 * 3600.0
JITTER = 10.0


@dataclass(frozen=True, slots=True)
class TokenKey:
    pod: PodRef
    service_account: str
    audience: str
    lifetime: int


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires_at: float
    refresh_at: float


class TokenRequests:
    """The tokens of this node's pods. Lives as long as the kubelet."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._tokens: dict[TokenKey, _Token] = {}

    async def token(self, key: TokenKey) -> str:
        """A token that is good for a while. Raises APIError or WireError if there is none."""
        now = self._clock.now().timestamp()
        known = self._tokens.get(key)
        if known is not None and now < known.refresh_at:
            return known.text
        try:
            fresh = self._tokens[key] = await self._request(key, now)
        except (APIError, WireError):
            if known is None or now >= known.expires_at:
                raise
            return known.text
        return fresh.text

    def refresh_at(self, pod: PodRef) -> float | None:
        """When (wall clock) the first of the pod's tokens should be asked for anew."""
        return min((token.refresh_at for key, token in self._tokens.items() if key.pod == pod), default=None)

    def forget(self, pod: PodRef) -> None:
        for key in [key for key in self._tokens if key.pod == pod]:
            del self._tokens[key]

    async def _request(self, key: TokenKey, now: float) -> _Token:
        path = resource_path("", "v1", "serviceaccounts", key.pod.namespace, key.service_account, "token")
        bound = {"kind": "Pod", "apiVersion": "v1", "name": key.pod.name, "uid": key.pod.uid}
        answer = await self._client.create(path, {
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"audiences": [key.audience] if key.audience else [], "expirationSeconds": key.lifetime,
                     "boundObjectRef": bound}})
        status = answer["status"]
        expires_at = parse_rfc3339(status["expirationTimestamp"]).timestamp()
        # Of the lifetime asked for: the server may extend it, for clients that read their token only once.
        lifetime = min(float(key.lifetime), expires_at - now)
        refresh_at = now + min(0.8 * lifetime, MAX_AGE) - random.uniform(0, min(JITTER, 0.1 * lifetime))
        return _Token(status["token"], expires_at, refresh_at)
