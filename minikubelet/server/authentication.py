"""Who calls the kubelet: client certificate, bearer token, or nobody.

My job: one `User` per request or a refusal (upstream's union authenticator: x509, token webhook, anonymous). I own
the cache of token reviews. Neighbours: `certs.identity` verifies certificates, the API server reviews tokens. Rule:
credentials that fail are an error; only a request without any may be anonymous.
"""

import binascii
import hashlib
import logging
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from certs.errors import NoIdentity, UnverifiedCertificate
from certs.identity import ClientCAs
from minikubelet.clock import Clock
from minikubelet.kubeletconfiguration import Authentication
from minikubelet.logline import kv
from minikubelet.server.ttlcache import TTLCache
from wire.apiclient import APIError, Client, resource_path
from wire.errors import WireError
from wire.upgrade import is_websocket, tls_facts

JSON = dict[str, Any]

AUTHENTICATED = "system:authenticated"
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
RETRY_DELAYS = (0.5, 0.75, 1.125, 1.6875)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Unauthenticated(Exception):
    """Nobody we know, or credentials that prove nothing."""


class Authenticator:
    """Lives as long as the server."""

    def __init__(self, settings: Authentication, client: Client, clock: Clock) -> None:
        self._settings, self._client, self._clock = settings, client, clock
        self._cas = ClientCAs([Path(settings.client_ca_file)]) if settings.client_ca_file else None
        self._reviews: TTLCache[bytes, User | bool] = TTLCache(clock.monotonic)

    async def authenticate(self, request: web.BaseRequest) -> User:
        """Raises Unauthenticated."""
        if (user := self._by_certificate(request)) is not None:
            return _authenticated(user)
        if self._settings.webhook_enabled and (token := bearer_token(request)) is not None:
            return _authenticated(await self._by_token(token))
        if self._settings.anonymous_enabled:
            return ANONYMOUS
        raise Unauthenticated("no credentials")

    def _by_certificate(self, request: web.BaseRequest) -> User | None:
        tls = tls_facts(request)
        der = tls.getpeercert(binary_form=True) if tls is not None and self._cas is not None else None
        if der is None or self._cas is None:
            return None
        try:
            identity = self._cas.authenticate(der)
        except NoIdentity:
            return None
        except UnverifiedCertificate as error:
            raise Unauthenticated(str(error)) from error
        return User(identity.user, identity.groups, identity.uid)

    async def _by_token(self, token: str) -> User:
        key = hashlib.sha256(token.encode()).digest()
        known = self._reviews.get(key)
        if known is None:
            known = _reviewed(await self._review(token))
            self._reviews.put(key, known, self._settings.webhook_cache_ttl)
        if isinstance(known, bool):
            raise Unauthenticated("invalid bearer token")
        return known

    async def _review(self, token: str) -> JSON:
        body = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}}
        path = resource_path("authentication.k8s.io", "v1", "tokenreviews")
        for delay in (*RETRY_DELAYS, None):
            try:
                return await self._client.create(path, body)
            except (WireError, APIError) as error:
                if delay is None or (isinstance(error, APIError) and error.code < 500):
                    log.warning("tokenreview.lost %s", kv(error=error))
                    raise Unauthenticated(f"token review: {error}") from error
            await self._clock.sleep(delay)
        raise AssertionError("unreachable")


def _reviewed(review: JSON) -> User | bool:
    """The user, or False."""
    status = review.get("status") or {}
    if not status.get("authenticated"):
        return False
    user = status.get("user") or {}
    extra = tuple((key, tuple(values)) for key, values in sorted((user.get("extra") or {}).items()))
    return User(user.get("username", ""), tuple(user.get("groups") or ()), user.get("uid", ""), extra)


def _authenticated(user: User) -> User:
    if AUTHENTICATED in user.groups or "system:unauthenticated" in user.groups:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)


def bearer_token(request: web.BaseRequest) -> str | None:
    """From the Authorization header, or from the subprotocols of a WebSocket."""
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return _subprotocol_token(request) if is_websocket(request.headers) else None


def _subprotocol_token(request: web.BaseRequest) -> str | None:
    offered = [name.strip() for line in request.headers.getall("Sec-WebSocket-Protocol", ())
               for name in line.split(",")]
    tokens = [name for name in offered if name.startswith(BEARER_PROTOCOL)]
    if not tokens:
        return None
    if len(tokens) > 1 or len(offered) < 2:
        raise Unauthenticated("the bearer subprotocol must come once, beside another subprotocol")
    encoded = tokens[0].removeprefix(BEARER_PROTOCOL)
    try:
        return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthenticated("the bearer subprotocol is not base64url") from error
