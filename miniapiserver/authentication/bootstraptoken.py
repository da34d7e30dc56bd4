"""Bootstrap tokens: Secrets in kube-system that let a new node ask for its first certificate.

My job: `abcdef.0123456789abcdef` → `system:bootstrap:abcdef` with its groups, by upstream's checks
(`plugin/pkg/auth/authenticator/token/bootstrap`). The bearer chain asks me; `minicontroller` deletes expired Secrets.
"""

import base64
import datetime
import hmac
import re
from collections.abc import Callable
from typing import Any

from miniapiserver.authentication.interface import AuthenticationFailed, UserInfo
from miniapiserver.registry.objects import Objects

TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
SECRET_TYPE = "bootstrap.kubernetes.io/token"


class BootstrapTokenAuthenticator:
    """`now` is seconds since the epoch."""

    def __init__(self, objects: Objects, now: Callable[[], float]) -> None:
        self._objects, self._now = objects, now

    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        match = TOKEN.fullmatch(token)
        if match is None:
            return None
        token_id, token_secret = match.groups()
        secret = self._objects.get("secrets", "kube-system", f"bootstrap-token-{token_id}")
        if secret is None:
            return None
        problem = problem_with(secret, token_id, token_secret, self._now())
        if problem:
            raise AuthenticationFailed(f"bootstrap token {token_id}: {problem}")
        groups = {"system:bootstrappers", *_words(decoded(secret, "auth-extra-groups"))}
        return UserInfo(f"system:bootstrap:{token_id}", groups=tuple(sorted(groups)))


def problem_with(secret: dict[str, Any], token_id: str, token_secret: str, now: float) -> str:
    """Why this Secret does not vouch for the token; "" when it does."""
    if secret.get("type") != SECRET_TYPE or secret["metadata"].get("deletionTimestamp"):
        return "not a live bootstrap token"
    if not hmac.compare_digest(decoded(secret, "token-secret").encode(), token_secret.encode()):
        return "wrong secret"
    if decoded(secret, "token-id") != token_id:
        return "token-id differs from the secret's name"
    if has_expired(secret, now):
        return "expired"
    if decoded(secret, "usage-bootstrap-authentication") != "true":
        return "not meant for authentication"
    if not all(GROUP.fullmatch(group) for group in _words(decoded(secret, "auth-extra-groups"))):
        return "malformed group"
    return ""


def has_expired(secret: dict[str, Any], now: float) -> bool:
    """An expiration that cannot be read counts as passed (upstream `bootstrap/secrets`)."""
    text = decoded(secret, "expiration")
    if not text:
        return False
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() <= now
    except ValueError:
        return True


def decoded(secret: dict[str, Any], key: str) -> str:
    """A value of the Secret as text, "" when absent or not text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()
    except ValueError:
        return ""


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]
