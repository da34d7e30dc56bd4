"""Bootstrap tokens from the command line: make, list, delete, and the command that joins a node with one.

My job: `miniplane token create|list|delete` and `join-command` against a running cluster, by its admin kubeconfig. A
token is a Secret in kube-system; who deletes it when its time is over is the token cleaner (`minicontroller`).
"""

import argparse
import base64
import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from certs import discovery
from certs.errors import CertsError
from miniplane.apiclient import Answer, APIClient
from miniplane.errors import MiniplaneError, OptionsError
from miniplane.state import StateDir

JSON = dict[str, Any]

SECRETS: Final = "/api/v1/namespaces/kube-system/secrets"
TYPE: Final = "bootstrap.kubernetes.io/token"
NAME: Final = "bootstrap-token-"
USAGES: Final = ("signing", "authentication")
DEFAULT_GROUP: Final = "system:bootstrappers:kubeadm:default-node-token"
DEFAULT_TTL: Final = "24h"
_GROUP: Final = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A token to be made. `ttl` in seconds, 0 for ever."""

    token: str
    ttl: float
    usages: tuple[str, ...] = USAGES
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    description: str = ""


def new_token() -> str:
    alphabet = string.ascii_lowercase + string.digits
    word = "".join(secrets.choice(alphabet) for _ in range(22))
    return f"{word[:6]}.{word[6:]}"


def duration(text: str) -> float:
    """`24h`, `1h30m`, `90s`, `0`. Raises OptionsError."""
    if text == "0":
        return 0.0
    parts = re.findall(r"(\d+)([smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise OptionsError(f"{text!r} is not a duration like 24h or 90s")
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


def wanted(options: argparse.Namespace) -> Wanted:
    """Raises OptionsError."""
    token = options.token or new_token()
    try:
        discovery.split_token(token)
    except CertsError as error:
        raise OptionsError(str(error)) from error
    usages = tuple(word for word in options.usages.split(",") if word)
    groups = tuple(word for word in options.groups.split(",") if word)
    for usage in usages:
        if usage not in USAGES:
            raise OptionsError(f"--usages: {usage!r} is not one of {', '.join(USAGES)}")
    for group in groups:
        if not _GROUP.fullmatch(group):
            raise OptionsError(f"--groups: {group!r} does not begin with system:bootstrappers: as it must")
    return Wanted(token, duration(options.ttl), usages, groups, options.description)


def secret(token: Wanted, now: datetime) -> JSON:
    token_id, token_secret = discovery.split_token(token.token)
    data = {"token-id": token_id, "token-secret": token_secret}
    data |= {f"usage-bootstrap-{usage}": "true" for usage in token.usages}
    if token.groups and "authentication" in token.usages:
        data["auth-extra-groups"] = ",".join(token.groups)
    if token.ttl:
        data["expiration"] = (now + timedelta(seconds=token.ttl)).strftime("%Y-%m-%dT%H:%M:%SZ")
    if token.description:
        data["description"] = token.description
    return {"apiVersion": "v1", "kind": "Secret", "type": TYPE,
            "metadata": {"name": NAME + token_id, "namespace": "kube-system"},
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}


def create(state: StateDir, token: Wanted) -> None:
    """Raises MiniplaneError."""
    with APIClient.from_kubeconfig(_admin(state)) as client:
        _checked(client.request("POST", SECRETS, secret(token, datetime.now(UTC))), "create the token")


def delete(state: StateDir, name: str) -> None:
    """By its ID or the whole token. Raises MiniplaneError."""
    token_id = name.partition(".")[0]
    with APIClient.from_kubeconfig(_admin(state)) as client:
        _checked(client.request("DELETE", f"{SECRETS}/{NAME}{token_id}"), f"delete token {token_id}")


def listed(state: StateDir) -> list[JSON]:
    """The data of every token, as text. Raises MiniplaneError."""
    with APIClient.from_kubeconfig(_admin(state)) as client:
        answer = client.get(f"{SECRETS}?fieldSelector=type%3D{TYPE}")
        items = _checked(answer, "list tokens").get("items") or []
    return [{key: base64.b64decode(text).decode(errors="replace") for key, text in (item.get("data") or {}).items()}
            for item in items]


def rows(tokens: list[JSON], now: datetime) -> list[tuple[str, ...]]:
    """As kubeadm shows them, but without the secret: whoever may read it can read the Secret."""
    found: list[tuple[str, ...]] = [("TOKEN ID", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")]
    for data in sorted(tokens, key=lambda item: str(item.get("token-id"))):
        expires = data.get("expiration", "")
        usages = ",".join(sorted(usage for usage in USAGES if data.get(f"usage-bootstrap-{usage}") == "true"))
        found.append((data.get("token-id", ""), _left(expires, now), expires or "<never>", usages or "<none>",
                      data.get("description", "<none>"), data.get("auth-extra-groups", "<none>")))
    return found


def _left(expires: str, now: datetime) -> str:
    if not expires:
        return "<forever>"
    try:
        left = int((datetime.fromisoformat(expires) - now).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"
    if left <= 0:
        return "<expired>"
    return f"{left // 3600}h" if left >= 3600 else f"{left // 60}m" if left >= 60 else f"{left}s"


def join_command(state: StateDir, token: str) -> str:
    """The line to type on another machine."""
    client = APIClient.from_kubeconfig(_admin(state))
    return (f"miniplane node join {client.host}:{client.port} --token {token} "
            f"--discovery-token-ca-cert-hash {_pin(state)}")


def _pin(state: StateDir) -> str:
    try:
        return discovery.pins((state.path / "pki" / "ca.crt").read_bytes())[0]
    except (OSError, CertsError, IndexError) as error:
        raise MiniplaneError(f"{state.path / 'pki' / 'ca.crt'}: {error}") from error


def _admin(state: StateDir) -> Path:
    state.require_record()
    return state.path / "admin.conf"


def _checked(answer: Answer, what: str) -> JSON:
    if answer.status >= 300:
        try:
            why = str(answer.json().get("message"))
        except ValueError:
            why = f"status {answer.status}"
        raise MiniplaneError(f"{what}: {why}")
    return answer.json()
