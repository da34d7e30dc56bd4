"""What a request asks for, read from its method, path and query alone.

My job: `parse` turns an HTTP request line into a RequestInfo (apiserver `endpoints/request/requestinfo.go`).
Pure. The filters call me first; authentication, authorization, audit and dispatch all read the result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

#: HTTP method → verb of a resource request; GET and DELETE are refined by whether a name is given.
VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

#: namespaces/{name}/{sub}: the only subresources of a namespace, everything else is a namespaced resource.
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})

#: Requests that live as long as their client wants (apiserver `BasicLongRunningRequestCheck`).
LONG_RUNNING_VERBS = frozenset({"watch", "proxy"})
LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """`tail` is what follows the subresource (a proxy's path), still percent-encoded; `path` is the raw path."""

    is_resource: bool
    path: str
    verb: str
    api_prefix: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    tail: str = ""
    field_selector: str = ""
    label_selector: str = ""

    @property
    def is_long_running(self) -> bool:
        return self.verb in LONG_RUNNING_VERBS or self.subresource in LONG_RUNNING_SUBRESOURCES


def is_true(value: str | None) -> bool:
    """A Kubernetes query boolean: absent, `0` and `false` are false, anything else (the empty string too) is true."""
    return value is not None and value != "0" and value.lower() != "false"


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Never raises: what is not an API path is a non-resource request with the lower-case method as its verb."""
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return RequestInfo(False, path, method.lower())
    prefix = parts[0]
    if prefix == "apis":
        if len(parts) < 4:
            return RequestInfo(False, path, method.lower())
        group, version, rest = unquote(parts[1]), unquote(parts[2]), parts[3:]
    else:
        group, version, rest = "", unquote(parts[1]), parts[2:]
    return _resource_request(method, path, query, prefix, group, version, rest)


def _resource_request(method: str, path: str, query: Mapping[str, str], prefix: str, group: str, version: str,
                      rest: list[str]) -> RequestInfo:
    verb = VERBS.get(method, "")
    if rest[0] in ("watch", "proxy") and len(rest) > 1:  # the legacy /watch/ and /proxy/ prefixes name the verb
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = unquote(rest[1])
        if len(rest) > 2 and rest[2] not in NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    resource = unquote(rest[0])
    name = unquote(rest[1]) if len(rest) > 1 else ""
    subresource = unquote(rest[2]) if len(rest) > 2 else ""
    tail = _tail(path, rest) if subresource == "proxy" else "/".join(rest[3:])
    fields, labels = "", ""
    if not name:
        verb = _collection_verb(verb, query)
    if verb in ("list", "watch", "deletecollection"):
        fields, labels = query.get("fieldSelector", ""), query.get("labelSelector", "")
        name = name or _named_by(fields)
    return RequestInfo(True, path, verb, prefix, group, version, namespace, resource, subresource, name, tail,
                       fields, labels)


def _collection_verb(verb: str, query: Mapping[str, str]) -> str:
    if verb == "get":
        return "watch" if is_true(query.get("watch")) else "list"
    return "deletecollection" if verb == "delete" else verb


def _tail(path: str, rest: list[str]) -> str:
    """What follows `/proxy`, with its leading slash and exactly as it was sent; "" when nothing does."""
    segments = path.lstrip("/").split("/")
    before = len(path.strip("/").split("/")) - len(rest) + 3
    return "/" + "/".join(segments[before:]) if len(segments) > before else ""


def _named_by(field_selector: str) -> str:
    """`metadata.name=x` names the object for authorization (a single term is enough to be sure)."""
    for term in field_selector.split(","):
        key, _, value = term.partition("=")
        if key == "metadata.name":
            return value.removeprefix("=")
    return ""
