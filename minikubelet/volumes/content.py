"""From a volume of a pod to its payload: who is asked for what.

My job: gather ConfigMaps, Secrets, tokens and downward API fields for the four kinds of volume that consist of them.
I own nothing; what I ask comes in as `Sources`. Failures of several projected sources are reported together.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from minikubelet.volumes import payload
from minikubelet.volumes.errors import SetUpFailed, SourceMissing
from minikubelet.volumes.payload import DEFAULT_MODE, File, Payload

JSON = dict[str, Any]
GATHERED = ("configMap", "secret", "downwardAPI", "projected")
TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Sources:
    """What volumes need of the kubelet. `config_map` and `secret` take a name in the pod's namespace, None: there is
    none; an exception of theirs that says why becomes part of the FailedMount message only if it is a SourceMissing.
    `token` takes audience and lifetime in seconds. `field` and `resource` raise ValueError for what a pod lacks."""

    config_map: Callable[[str], Awaitable[JSON | None]]
    secret: Callable[[str], Awaitable[JSON | None]]
    token: Callable[[str, int], Awaitable[str]]
    field: Callable[[JSON, str], str]
    resource: Callable[[JSON, JSON], str]


async def gather(pod: JSON, volume: JSON, sources: Sources) -> Payload:
    """Raises SetUpFailed."""
    kind = next(kind for kind in GATHERED if kind in volume)
    part = volume[kind] or {}
    mode = part.get("defaultMode")
    mode = DEFAULT_MODE if mode is None else int(mode)
    pieces = part.get("sources") or [] if kind == "projected" else [{kind: part}]
    found: Payload = {}
    complaints: list[str] = []
    for piece in pieces:
        try:
            found |= await _piece(pod, piece, mode, sources)
        except SourceMissing as error:
            complaints.append(str(error))
    if complaints:
        why = complaints[0] if len(complaints) == 1 else f"[{', '.join(complaints)}]"
        raise SetUpFailed(volume["name"], why)
    return found


async def _piece(pod: JSON, piece: JSON, mode: int, sources: Sources) -> Payload:
    match piece:
        case {"configMap": part}:
            return payload.config_map(part, await sources.config_map(part.get("name", "")), mode)
        case {"secret": part}:
            return payload.secret(part, await sources.secret(part.get("secretName") or part.get("name", "")), mode)
        case {"downwardAPI": part}:
            return payload.downward(
                part.get("items") or (),
                mode,
                lambda path: sources.field(pod, path),
                lambda reference: sources.resource(pod, reference),
            )
        case {"serviceAccountToken": part}:
            token = await sources.token(part.get("audience") or "", int(part.get("expirationSeconds") or TOKEN_SECONDS))
            return {part.get("path") or "token": _token_file(pod, token, mode)}
    raise SourceMissing(f"unsupported projected volume source {', '.join(piece)}")


def _token_file(pod: JSON, token: str, default_mode: int) -> File:
    """0640 with fsGroup, 0600 for the one user all containers run as, else what the volume says."""
    spec = pod["spec"]
    shared = spec.get("securityContext") or {}
    if shared.get("fsGroup") is not None:
        return File(token.encode(), 0o640)
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    users = {(one.get("securityContext") or {}).get("runAsUser", shared.get("runAsUser")) for one in containers}
    if len(users) == 1 and (user := users.pop()) is not None:
        return File(token.encode(), 0o600, owner=int(user))
    return File(token.encode(), default_mode)
