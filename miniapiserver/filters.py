"""The chain every request passes, in order, and the one place where errors become HTTP.

My job: FILTERS below, then dispatch, then the audit and metrics entries. Each filter takes the request and either
notes what it found or raises an APIError. I own the count of requests in flight. aiohttp calls `Filters.handle`;
`endpoints.dispatch` is behind me.
"""

import asyncio
import html
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from miniapiserver import errors
from miniapiserver.audit import AuditLog, Stage
from miniapiserver.authentication.chain import AuthenticatorChain
from miniapiserver.authentication.interface import (
    ANONYMOUS,
    AuthenticationFailed,
    Credentials,
    UserInfo,
)
from miniapiserver.authorization.interface import Attributes, Authorizer, Decision
from miniapiserver.endpoints.responses import failure, unexpected
from miniapiserver.metrics import Metrics
from miniapiserver.request import Request
from miniapiserver.requestinfo import RequestInfo
from wire.http import Incoming
from wire.upgrade import TakenOver

log = logging.getLogger("apiserver")

#: Upstream's --max-requests-inflight plus --max-mutating-requests-inflight.
MOST_IN_FLIGHT = 600
READ_VERBS = frozenset({"get", "list", "watch", "head", "options"})
KNOWN_VERBS = READ_VERBS | {"create", "update", "patch", "delete", "deletecollection", "proxy", "post", "put"}
READ_ONLY, MUTATING = ("readOnly",), ("mutating",)
#: What audit log and metrics say of a request whose client did not wait for the answer.
CLIENT_LEFT = 499

Endpoint = Callable[[Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Guards:
    """What the filters ask. `timeout` is seconds for requests that are not long-running."""

    authenticator: AuthenticatorChain
    authorizer: Authorizer
    metrics: Metrics
    audit: AuditLog | None
    timeout: float
    new_audit_id: Callable[[], str]
    #: Whether a resource request names something that exists; nothing else becomes a metric's label.
    is_served: Callable[[RequestInfo], bool] = lambda info: True


class Filters:
    """Lives as long as the server."""

    def __init__(self, guards: Guards, endpoint: Endpoint) -> None:
        self._guards, self._endpoint = guards, endpoint
        self._in_flight = 0

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        audit_id = http.headers.get("Audit-ID") or self._guards.new_audit_id()
        request = Request(http, audit_id, time.time())
        try:
            response = await self._serve(request)
        except errors.APIError as error:
            response = failure(request, error)
        except (asyncio.CancelledError, ConnectionError):
            self._finish(request, started(http) or CLIENT_LEFT)
            raise
        except Exception as error:
            log.exception("request.panic verb=%s path=%s", request.info.verb, request.info.path)
            response = unexpected(request, error)
        self._finish(request, started(http) or response.status)
        if started(http) and not response.prepared and not isinstance(response, TakenOver):
            raise cut_off(http)  # an error inside an answer that has begun: a second head would be read as its body
        return response

    async def _serve(self, request: Request) -> web.StreamResponse:
        if request.malformed_escape:
            raise errors.BadRequest(f"invalid URL escape {errors.quote(request.malformed_escape)}")
        if request.info.is_long_running:
            await self._pass_filters(request)
            return await self._counted(request)
        if self._in_flight >= MOST_IN_FLIGHT:
            raise errors.TooManyRequests("too many requests, please try again later.", retry_after=1)
        self._in_flight += 1
        kind = READ_ONLY if request.info.verb in READ_VERBS else MUTATING
        self._guards.metrics.inflight.add(kind)
        try:
            async with asyncio.timeout(self._timeout(request)):
                await self._pass_filters(request)
                return await self._endpoint(request)
        except TimeoutError:
            raise errors.Timeout("request did not complete within the allotted timeout", details={}) from None
        finally:
            self._in_flight -= 1
            self._guards.metrics.inflight.add(kind, -1)

    async def _pass_filters(self, request: Request) -> None:
        for step in FILTERS:
            await step(self._guards, request)

    async def _counted(self, request: Request) -> web.StreamResponse:
        gauge, audit = self._guards.metrics.long_running, self._guards.audit
        verb, _, _, resource, subresource, _ = self._labels(request.info)
        labels = (verb, resource, subresource)
        gauge.add(labels)
        if audit is not None and isinstance(request.http, Incoming):
            request.http.when_started = lambda code: audit.record(request, Stage.STARTED, code)
        try:
            return await self._endpoint(request)
        except errors.APIError as error:
            if audit is not None and not started(request.http):
                audit.record(request, Stage.STARTED, error.code)
            raise
        finally:
            gauge.add(labels, -1)
            if isinstance(request.http, Incoming):
                request.http.when_started = None

    def _timeout(self, request: Request) -> float:
        asked = request.query.get("timeout")
        if asked is None:
            return self._guards.timeout
        seconds = parse_duration(asked)
        if seconds is None:
            raise errors.BadRequest(f"invalid timeout specified in the request URL - {errors.quote(asked)}")
        return min(seconds, self._guards.timeout) if seconds > 0 else self._guards.timeout

    def _finish(self, request: Request, code: int) -> None:
        labels = self._labels(request.info)
        self._guards.metrics.requests.add((*labels, str(code)))
        if not request.info.is_long_running:
            self._guards.metrics.durations.observe(labels, time.time() - request.started)
        if request.audit is not None and self._guards.audit is not None:
            self._guards.audit.record(request, Stage.COMPLETE, code)


    def _labels(self, info: RequestInfo) -> tuple[str, str, str, str, str, str]:
        """Never what a stranger can make up: each new combination would stay in memory for good."""
        verb = info.verb.upper() if info.verb in KNOWN_VERBS else "other"
        if not info.is_resource or not self._guards.is_served(info):
            return verb, "", "", "", "", ""
        scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
        return verb, info.group, info.version, info.resource, info.subresource, scope


def started(http: web.BaseRequest) -> int:
    """The status that is on its way already, 0 when none is."""
    return http.started if isinstance(http, Incoming) else 0


def cut_off(http: web.BaseRequest) -> ConnectionError:
    """End the connection in the middle, so that nobody takes what was sent for the whole."""
    if http.transport is not None:
        http.transport.abort()
    return ConnectionResetError("the answer broke off")


def parse_duration(text: str) -> float | None:
    """A Go duration (`30s`, `1m30s`, `500ms`) in seconds; None when it is none."""
    units = {"h": 3600.0, "ms": 0.001, "m": 60.0, "s": 1.0, "us": 1e-6, "ns": 1e-9}
    total, number, rest = 0.0, "", text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = next((unit for unit in sorted(units, key=len, reverse=True) if rest.startswith(unit)), None)
        if unit is None or not number or number.count(".") > 1 or number == ".":
            return 0.0 if text == "0" else None
        total += float(number) * units[unit]
        rest = rest[len(unit):]
    return total if text else None


async def authenticate(guards: Guards, request: Request) -> None:
    """Who asks. The credentials leave the request here, so that no later hop can leak them."""
    http = request.http
    try:
        request.user = await guards.authenticator.authenticate(
            Credentials(peer_certificate(http), http.headers, request.info.path))
    except AuthenticationFailed as error:
        log.debug("authentication.failed path=%s why=%s", request.info.path, error)
        request.user = NOBODY
        await audit(guards, request)
        raise errors.Unauthorized() from None


#: Whose credentials were refused: nobody's rights, nobody's name in the audit log.
NOBODY = UserInfo("")


def peer_certificate(http: web.BaseRequest) -> bytes | None:
    """The TLS peer's leaf certificate as DER, None without TLS or without a certificate."""
    ssl_object = http.transport.get_extra_info("ssl_object") if http.transport is not None else None
    return ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None


async def audit(guards: Guards, request: Request) -> None:
    if guards.audit is not None:
        guards.audit.begin(request)


async def impersonate(guards: Guards, request: Request) -> None:
    """`Impersonate-*` headers: act as somebody else, if the caller may (apiserver `filters/impersonation.go`)."""
    headers = request.http.headers
    asked = [name for name in headers if name.lower().startswith("impersonate-")]
    if not asked:
        return
    user = headers.get("Impersonate-User", "")
    if not user:
        raise errors.BadRequest("requested [" + ", ".join(asked) + "] without impersonating a user")
    groups = tuple(headers.getall("Impersonate-Group", []))
    uid = headers.get("Impersonate-Uid", "")
    extra = {unquote(name[len("Impersonate-Extra-"):]).lower(): tuple(headers.getall(name))
             for name in asked if name.lower().startswith("impersonate-extra-")}
    for attributes in _impersonations(request.user, user, groups, uid, extra):
        verdict = await guards.authorizer.authorize(attributes)
        if verdict.decision is not Decision.ALLOW:
            raise denial(attributes, verdict.reason)
    request.impersonator = request.user
    request.user = _impersonated(user, groups, uid, extra)


def _impersonations(caller: UserInfo, user: str, groups: tuple[str, ...], uid: str,
                    extra: dict[str, tuple[str, ...]]) -> list[Attributes]:
    account = user.removeprefix("system:serviceaccount:").split(":")
    if user.startswith("system:serviceaccount:") and len(account) == 2:
        first = Attributes(caller, "impersonate", namespace=account[0], resource="serviceaccounts", name=account[1],
                           version="v1")
    else:
        first = Attributes(caller, "impersonate", resource="users", name=user, version="v1")
    found = [first]
    found += [Attributes(caller, "impersonate", resource="groups", name=group, version="v1") for group in groups]
    if uid:
        found.append(Attributes(caller, "impersonate", group="authentication.k8s.io", version="v1", resource="uids",
                                name=uid))
    found += [Attributes(caller, "impersonate", group="authentication.k8s.io", version="v1", resource="userextras",
                         subresource=key, name=value) for key, values in extra.items() for value in values]
    return found


def _impersonated(user: str, groups: tuple[str, ...], uid: str, extra: dict[str, tuple[str, ...]]) -> UserInfo:
    parts = user.split(":")
    if not groups and user.startswith("system:serviceaccount:") and len(parts) == 4:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{parts[2]}")
    if user == ANONYMOUS:
        return UserInfo(user, uid, groups or ("system:unauthenticated",), extra)
    return UserInfo(user, uid, groups, extra).with_authenticated()


async def authorize(guards: Guards, request: Request) -> None:
    attributes = attributes_of(request.user, request.info)
    verdict = await guards.authorizer.authorize(attributes)
    if request.audit is not None:
        allowed = verdict.decision is Decision.ALLOW
        request.annotations["authorization.k8s.io/decision"] = "allow" if allowed else "forbid"
        request.annotations["authorization.k8s.io/reason"] = verdict.reason
    if verdict.decision is not Decision.ALLOW:
        raise denial(attributes, verdict.reason)


def attributes_of(user: UserInfo, info: RequestInfo) -> Attributes:
    if not info.is_resource:
        return Attributes(user, info.verb, is_resource=False, path=info.path)
    return Attributes(user, info.verb, True, info.namespace, info.group, info.version, info.resource,
                      info.subresource, info.name, info.path, info.field_selector, info.label_selector)


def denial(attributes: Attributes, reason: str) -> errors.Forbidden:
    """Upstream's 403 (apiserver `handlers/responsewriters/errors.go Forbidden`)."""
    user = html.escape(f'"{attributes.user.name}"', quote=False)
    tail = f": {reason}" if reason else ""
    if not attributes.is_resource:
        return errors.Forbidden(f'forbidden: User {user} cannot {attributes.verb} path "{attributes.path}"{tail}',
                                details={})
    resource = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    why = (f'User {user} cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}" '
           f"{where}{tail}")
    return errors.Forbidden.resource(attributes.resource, attributes.group, attributes.name, why)


#: In upstream's order (apiserver `server/config.go DefaultBuildHandlerChain`).
FILTERS: tuple[Callable[[Guards, Request], Awaitable[None]], ...] = (authenticate, audit, impersonate, authorize)
