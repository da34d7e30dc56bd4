"""From a request to the URL behind it. Pure: what is asked for, never how it gets there.

My job: container resolution, query translation to the kubelet's names, and the targets of the proxy subresources
(registry `core/pod/strategy.go`, `core/node/strategy.go`, `core/service/storage`). `kubelet` knows addresses,
`endpoints` send.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from posixpath import normpath
from typing import Any
from urllib.parse import quote, unquote, urlencode

from miniapiserver.errors import (
    BadRequest,
    FieldError,
    Invalid,
    ServiceUnavailable,
    forbidden_field,
    invalid,
)
from miniapiserver.requestinfo import is_true

JSON = Mapping[str, Any]
Pairs = Sequence[tuple[str, str]]


def first(query: Pairs, name: str) -> str | None:
    """Only the first value of a repeated parameter counts."""
    return next((value for key, value in query if key == name), None)


# Containers


def container_of(pod: JSON, asked: str) -> str:
    """The container a request means. Raises BadRequest in upstream's words."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    regular = [container["name"] for container in spec.get("containers") or ()]
    visited = [
        container["name"]
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(kind) or ()
    ]
    if not asked:
        if len(regular) == 1:
            return str(regular[0])
        if not regular:
            raise BadRequest(f"a container name must be specified for pod {name}")
        raise BadRequest(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(visited)}]"
        )
    if asked not in visited:
        raise BadRequest(f"container {asked} is not valid for pod {name}")
    return asked


def host_of(pod: JSON) -> str:
    """The pod's node. Raises BadRequest before it is scheduled."""
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
    return str(node)


# Logs


@dataclass(frozen=True, slots=True)
class LogOptions:
    """PodLogOptions as far as they are checked here."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: str | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    insecure: bool = False

    def query(self) -> str:
        """What the kubelet is asked, with only what was set, sorted."""
        pairs: list[tuple[str, str]] = []
        pairs += [(name, "true") for name, on in (("follow", self.follow), ("previous", self.previous)) if on]
        if self.limit_bytes is not None:
            pairs.append(("limitBytes", str(self.limit_bytes)))
        if self.since_seconds is not None:
            pairs.append(("sinceSeconds", str(self.since_seconds)))
        if self.since_time is not None:
            pairs.append(("sinceTime", self.since_time))
        if self.tail_lines is not None:
            pairs.append(("tailLines", str(self.tail_lines)))
        if self.timestamps:
            pairs.append(("timestamps", "true"))
        return urlencode(sorted(pairs))


def log_options(pod: str, query: Pairs) -> LogOptions:
    """Decode and validate. Raises BadRequest for what is no number, Invalid for what is out of range."""
    since_time = first(query, "sinceTime")
    options = LogOptions(
        container=first(query, "container") or "",
        follow=is_true(first(query, "follow")),
        previous=is_true(first(query, "previous")),
        timestamps=is_true(first(query, "timestamps")),
        since_seconds=_integer(query, "sinceSeconds"),
        since_time=_whole_seconds(since_time) if since_time and since_time != "null" else None,
        tail_lines=_integer(query, "tailLines"),
        limit_bytes=_integer(query, "limitBytes"),
        insecure=is_true(first(query, "insecureSkipTLSVerifyBackend")),
    )
    if errors := _log_errors(options, first(query, "stream")):
        raise Invalid.fields("PodLogOptions", "", pod, errors)
    return options


def _log_errors(options: LogOptions, stream: str | None) -> list[FieldError]:
    errors = []
    if options.tail_lines is not None and options.tail_lines < 0:
        errors.append(invalid("tailLines", options.tail_lines, "must be greater than or equal to 0"))
    if options.limit_bytes is not None and options.limit_bytes < 1:
        errors.append(invalid("limitBytes", options.limit_bytes, "must be greater than 0"))
    if options.since_seconds is not None and options.since_time is not None:
        errors.append(forbidden_field("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif options.since_seconds is not None and options.since_seconds < 1:
        errors.append(invalid("sinceSeconds", options.since_seconds, "must be greater than 0"))
    if stream is not None:
        errors.append(forbidden_field("stream", "may not be specified"))
    return errors


def _integer(query: Pairs, name: str) -> int | None:
    text = first(query, name)
    if text is None or text == "":
        return None
    digits = text[1:] if text[:1] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def _whole_seconds(text: str) -> str:
    """RFC 3339 without the fraction of a second, which upstream cuts on this hop. Raises BadRequest."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or "T" not in text:
        raise BadRequest(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}"')
    return when.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def log_path(namespace: str, pod: str, container: str) -> str:
    return f"/containerLogs/{_segment(namespace)}/{_segment(pod)}/{_segment(container)}"


# Exec, attach, port-forward


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """PodExecOptions and PodAttachOptions: the bool rule, no defaults."""

    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    command: tuple[str, ...] = ()

    def query(self) -> str:
        """The kubelet's own names: input, output, error, tty, each `1`."""
        rows = (("error", self.stderr), ("input", self.stdin), ("output", self.stdout), ("tty", self.tty))
        return urlencode([("command", word) for word in self.command] + [(name, "1") for name, on in rows if on])


def command_options(query: Pairs) -> CommandOptions:
    flags = {name: is_true(first(query, name)) for name in ("stdin", "stdout", "stderr", "tty")}
    words = tuple(value for key, value in query if key == "command")
    return CommandOptions(first(query, "container") or "", **flags, command=words)


def command_path(verb: str, namespace: str, pod: str, container: str) -> str:
    return f"/{verb}/{_segment(namespace)}/{_segment(pod)}/{_segment(container)}"


def port_forward_path(namespace: str, pod: str, query: Pairs) -> str:
    """With `port=80,443` only if ports were named in the URL (old WebSocket clients)."""
    ports = [part for key, value in query if key == "ports" for part in value.split(",") if part]
    for port in ports:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
            raise BadRequest(f'strconv.ParseInt: parsing "{port}": invalid syntax')
    path = f"/portForward/{_segment(namespace)}/{_segment(pod)}"
    return f"{path}?{urlencode({'port': ','.join(ports)})}" if ports else path


# Proxy


@dataclass(frozen=True, slots=True)
class ProxyID:
    """`name`, `name:port` or `scheme:name:port`."""

    scheme: str
    name: str
    port: str


def proxy_id(text: str, kind: str) -> ProxyID:
    """Raises BadRequest `invalid pod request "…"` and its kin."""
    match text.split(":"):
        case [name] if name:
            return ProxyID("", name, "")
        case [name, port] if name and port:
            return ProxyID("", name, port)
        case [scheme, name, port] if scheme in ("", "http", "https") and name:
            return ProxyID(scheme, name, port)
    raise BadRequest(f'invalid {kind} request "{text}"')


def default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def pod_target(pod: JSON, asked: ProxyID, permits: Callable[[str], bool]) -> tuple[str, str]:
    """Host and port text of a pod. Raises BadRequest for an address that may not be dialed."""
    addresses = addresses_of(pod)
    host = addresses[0] if addresses else ""
    if not permits(host):
        raise BadRequest("address not allowed")
    return host, asked.port or _first_container_port(pod)


def _first_container_port(pod: JSON) -> str:
    for container in (pod.get("spec") or {}).get("containers") or ():
        for port in container.get("ports") or ():
            return str(port["containerPort"])
    return ""


def service_port_name(service: JSON, asked: str) -> str:
    """The port name that a service id means. Raises ServiceUnavailable."""
    if not asked.isdigit():
        return asked
    name = service["metadata"]["name"]
    for port in (service.get("spec") or {}).get("ports") or ():
        if port.get("port") == int(asked):
            return str(port.get("name") or "")
    raise ServiceUnavailable(f'no service port {asked} found for service "{name}"')


@dataclass(frozen=True, slots=True)
class Candidate:
    """One ready address of a service, and the pod that must stand behind it."""

    ip: str
    port: int
    pod: str


def service_candidates(
    endpoints: JSON, namespace: str, port_name: str, start: Callable[[int], int] = random.randrange
) -> list[Candidate]:
    """Ready addresses in random rotation, of pods of this namespace only (CVE-2021-25740).

    Raises ServiceUnavailable when there are no subsets at all.
    """
    name = endpoints["metadata"]["name"]
    subsets = endpoints.get("subsets") or []
    if not subsets:
        raise ServiceUnavailable(f'no endpoints available for service "{name}"')
    found = []
    for subset in _rotated(subsets, start):
        ports = [port for port in subset.get("ports") or () if (port.get("name") or "") == port_name]
        if not ports:
            continue
        for address in _rotated(subset.get("addresses") or [], start):
            reference = address.get("targetRef") or {}
            if reference.get("namespace") == namespace and reference.get("name"):
                found.append(Candidate(address["ip"], int(ports[0]["port"]), reference["name"]))
    return found


def _rotated(items: list[Any], start: Callable[[int], int]) -> list[Any]:
    at = start(len(items)) if items else 0
    return items[at:] + items[:at]


def backs(pod: JSON, ip: str) -> bool:
    """Whether a pod really has this address."""
    return ip in addresses_of(pod)


def addresses_of(pod: JSON) -> list[str]:
    """A pod's addresses, also where only the old single field is set."""
    status = pod.get("status") or {}
    listed = [str(entry.get("ip", "")) for entry in status.get("podIPs") or ()]
    return listed or [address for address in (status.get("podIP"),) if address]


def proxied_path(tail: str) -> str:
    """The path behind the proxy: decoded, cleaned so that it can not climb, encoded again. `tail` as it was sent."""
    decoded = unquote(tail, errors="surrogateescape")
    if not decoded:
        return ""
    cleaned = normpath("/" + decoded.lstrip("/"))
    if decoded.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return quote(cleaned, safe="/!$&'()*+,;=:@~-._", errors="surrogateescape")


def _segment(text: str) -> str:
    return quote(text, safe="")
