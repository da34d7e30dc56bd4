"""A conversation with Kubernetes v1.36, and how ours is compared with it.

`tests/golden/conversation.jsonl` holds one exchange per line, in order: what was asked and what the real API server
answered, with values that differ from run to run masked. Field order does not matter, every other value does.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

CONVERSATION = Path(__file__).parent.parent / "golden" / "conversation.jsonl"

#: Fields that name a moment, a machine or a random choice.
VOLATILE = frozenset(
    {
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "selfLink",
        "time",
        "token",
        "expirationTimestamp",
        "lastTransitionTime",
        "lastProbeTime",
        "lastHeartbeatTime",
        "startTime",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
        "gitVersion",
        "continue",
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "emulationMajor",
        "emulationMinor",
        "minCompatibilityMajor",
        "minCompatibilityMinor",
        "freshness",
        "serverAddress",
        "deletionTimestamp",
        # the digest of the certificate that asked
        "authentication.kubernetes.io/credential-id",
    }
)
AGE = re.compile(r"(\d+[smhdy])+|<invalid>|<unknown>")
SUFFIX = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}$")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ADDRESS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b(:\d+)?")
#: Written by a controller a moment after the object appears.
LATE_ANNOTATION = "node.alpha.kubernetes.io/ttl"


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    ask: dict[str, Any]
    status: int
    type: str
    body: Any


def conversation() -> list[Exchange]:
    found = []
    for line in CONVERSATION.read_text().splitlines():
        entry = json.loads(line)
        answer = entry["answer"]
        found.append(Exchange(entry["name"], entry["ask"], answer["status"], answer["type"], mask(answer["body"])))
    return found


def mask(value: Any) -> Any:
    if isinstance(value, dict):
        masked = {key: "*" if key in VOLATILE else mask(item) for key, item in value.items() if key != LATE_ANNOTATION}
        return {key: item for key, item in masked.items() if item != {} or key != "annotations"}
    if isinstance(value, list):
        return [mask(item) for item in value]
    if isinstance(value, str):
        if AGE.fullmatch(value):
            return "<age>"
        return SUFFIX.sub("-*****", ADDRESS.sub("<address>", UUID.sub("<uuid>", value)))
    return value


def difference(want: Any, got: Any, path: str = "$") -> str:
    """The first place where two masked values differ; "" when they do not."""
    if type(want) is not type(got):
        return f"{path}: want {json.dumps(want)[:200]} got {json.dumps(got)[:200]}"
    if isinstance(want, dict):
        for key in sorted(want.keys() | got.keys()):
            if key not in got:
                return f"{path}.{key}: missing (want {json.dumps(want[key])[:200]})"
            if key not in want:
                return f"{path}.{key}: not in Kubernetes' answer (got {json.dumps(got[key])[:200]})"
            if found := difference(want[key], got[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(want, list):
        if len(want) != len(got):
            return f"{path}: want {len(want)} items got {len(got)}"
        return next(
            (
                found
                for index, (one, other) in enumerate(zip(want, got, strict=True))
                if (found := difference(one, other, f"{path}[{index}]"))
            ),
            "",
        )
    return "" if want == got else f"{path}: want {json.dumps(want)[:200]} got {json.dumps(got)[:200]}"


async def replay(exchange: Exchange, admin: aiohttp.ClientSession, nobody: aiohttp.ClientSession) -> str:
    """How our answer differs from the recorded one; "" when it does not."""
    ask = exchange.ask
    headers = {"Accept": "application/json", "User-Agent": "", **(ask.get("headers") or {})}
    body = ask.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    session = nobody if ask.get("anonymous") else admin
    async with session.request(ask["method"], ask["path"], data=body, headers=headers) as response:
        text = await response.text()
        if response.status != exchange.status:
            return f"want status {exchange.status} got {response.status}: {text[:300]}"
        kind = response.headers.get("Content-Type", "").split(";")[0]
        if kind != exchange.type:
            return f"want {exchange.type!r} got {kind!r}"
        return difference(exchange.body, mask(json.loads(text) if kind == "application/json" else text))
