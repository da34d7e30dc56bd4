"""The chain every request passes, in order, and the one place where errors become HTTP.

My job: FILTERS below, then dispatch, then the audit and metrics entries. Each filter takes the request and either notes what it found
or raises an APIError. I own the count of requests in flight. aiohttp calls `Filters.handle`; `endpoints.dispatch` is behind me.
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

log = logging.getLogger("apiserver")

#: Upstream's --max-requests-inflight plus --max-mutating-requests-inflight.
MOST_IN_FLIGHT = 600
READ_VERBS = frozenset({"get", "list", "watch"})

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
            self._finish(request, 499)  # the client left; nobody reads an answer
            raise
        except Exception as error:
            log.exception("request.panic uri=%s", http.path)
            response = unexpected(request, error)
        self._finish(request, response.status)
        return response

    async def _serve(self, request: Request) -> web.StreamResponse:
        if request.info.is_long_running:
            await self._pass_filters(request)
            return await self._counted(request)
        if self._in_flight >= MOST_IN_FLIGHT:
            raise errors.TooManyRequests("too many requests, please try again later.", retry_after=1)
        self._in_flight += 1
        try:
            async with asyncio.timeout(self._timeout(request)):
                await self._pass_filters(request)
                return await self._endpoint(request)
        except TimeoutError:
            raise errors.Timeout("request did not complete within the allotted timeout", details={}) from None
        finally:
            self._in_flight -= 1

    async def _pass_filters(self, request: Request) -> None:
        for step in FILTERS:
            await step(self._guards, request)

    async def _counted(self, request: Request) -> web.StreamResponse:
        info, gauge = request.info, self._guards.metrics.long_running
        labels = (info.verb, info.resource, info.subresource)
        gauge.add(labels)
        if request.audit is not None and self._guards.audit is not None:
            self._guards.audit.record(request, Stage.STARTED, 200)
        try:
            return await self._endpoint(request)
        finally:
            gauge.add(labels, -1)

    def _timeout(self, request: Request) -> float:
        asked = request.query.get("timeout")
        if asked is None:
            return self._guards.timeout
        seconds = parse_duration(asked)
        if seconds is None:
            raise errors.BadRequest(f"invalid timeout specified in the request URL - {errors.quote(asked)}")
        return min(seconds, self._guards.timeout) if seconds > 0 else self._guards.timeout

    def _finish(self, request: Request, code: int) -> None:
        info = request.info
        resource = info.resource if info.is_resource else ""
        scope = "" if not resource else "resource" if info.name else "namespace" if info.namespace else "cluster"
        labels = (info.verb.upper(), info.group, info.version, resource, info.subresource, scope)
        self._guards.metrics.requests.add((*labels, str(code)))
        if not info.is_long_running:
            self._guards.metrics.durations.observe(labels, time.time() - request.started)
        if request.audit is not None and self._guards.audit is not None:
            self._guards.audit.record(request, Stage.COMPLETE, code)


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
        log.debug("authentication.failed uri=%s why=%s", request.info.path, error)
        raise errors.Unauthorized() from None


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
