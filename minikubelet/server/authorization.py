"""What a caller may do: the path decides the subresource of nodes, the API server decides the rest.

My job: path and method to attributes (a table), attributes to SubjectAccessReviews, answers to a cache (upstream
server/auth.go, fine-grained since 1.32). I own the cache. Neighbours: `authentication` names the user. Rule: /exec,
/attach, /portForward and /run need `create` by whatever method they are asked, since a WebSocket is a GET.
"""

import logging
from dataclasses import dataclass
from typing import Any

from minikubelet.clock import Clock
from minikubelet.kubeletconfiguration import Authorization
from minikubelet.logline import kv
from minikubelet.server.authentication import User
from minikubelet.server.ttlcache import TTLCache
from wire.apiclient import APIError, Client, resource_path
from wire.errors import WireError

JSON = dict[str, Any]

# First match wins; a path matches exactly or as a prefix that ends at a slash.
SUBRESOURCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("/stats", ("stats",)),
    ("/metrics", ("metrics",)),
    ("/logs", ("log",)),
    ("/checkpoint", ("checkpoint",)),
    ("/statusz", ("statusz",)),
    ("/flagz", ("configz",)),
    ("/pods", ("pods", "proxy")),
    ("/runningpods", ("pods", "proxy")),
    ("/healthz", ("healthz", "proxy")),
    ("/configz", ("configz", "proxy")),
)
EVERYTHING_ELSE = ("proxy",)

VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
CREATING = ("/exec", "/attach", "/portForward", "/run")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked of the authorizer, once per subresource."""

    verb: str
    subresources: tuple[str, ...]


class Denied(Exception):
    """403 with this text."""


class NoVerdict(Exception):
    """The authorizer could not be asked: 500 with this text."""


def attributes(method: str, path: str) -> Attributes:
    verb = "create" if any(_matches(path, prefix) for prefix in CREATING) else VERBS.get(method, "")
    for prefix, subresources in SUBRESOURCES:
        if _matches(path, prefix):
            return Attributes(verb, subresources)
    return Attributes(verb, EVERYTHING_ELSE)


def _matches(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


class Authorizer:
    """Lives as long as the server."""

    def __init__(self, settings: Authorization, node_name: str, client: Client, clock: Clock) -> None:
        self._settings, self._node_name, self._client = settings, node_name, client
        self._verdicts: TTLCache[tuple[User, str, str], bool] = TTLCache(clock.monotonic)

    async def authorize(self, user: User, asked: Attributes) -> None:
        """Raises Denied or NoVerdict."""
        if self._settings.mode == "AlwaysAllow":
            return
        for subresource in asked.subresources:
            if await self._allows(user, asked.verb, subresource):
                return
        raise Denied(f"Forbidden (user={user.name}, verb={asked.verb}, resource=nodes, "
                     f"subresource(s)=[{' '.join(asked.subresources)}])\n")

    async def _allows(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        known = self._verdicts.get(key)
        if known is None:
            known = await self._review(user, verb, subresource)
            ttl = self._settings.cache_authorized_ttl if known else self._settings.cache_unauthorized_ttl
            self._verdicts.put(key, known, ttl)
        return known

    async def _review(self, user: User, verb: str, subresource: str) -> bool:
        body = {
            "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {
                "user": user.name, "groups": list(user.groups), "uid": user.uid,
                "extra": {name: list(values) for name, values in user.extra},
                "resourceAttributes": {"verb": verb, "group": "", "version": "v1", "resource": "nodes",
                                       "subresource": subresource, "name": self._node_name, "namespace": ""},
            }}
        try:
            answer = await self._client.create(
                resource_path("authorization.k8s.io", "v1", "subjectaccessreviews"), body)
        except (APIError, WireError) as error:
            log.warning("authorization.lost %s", kv(user=user.name, error=error))
            raise NoVerdict(f"Authorization error (user={user.name}, verb={verb}, resource=nodes, "
                            f"subresource={subresource})") from error
        status = answer.get("status") or {}
        return bool(status.get("allowed")) and not status.get("denied")
