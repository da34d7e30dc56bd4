"""The words every authenticator speaks.

My job: UserInfo, Credentials, the Authenticator protocol and the one error. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"


class AuthenticationFailed(Exception):
    """A credential was presented and is bad: 401, never anonymous. The text is for the log, not for the client."""


@dataclass(frozen=True, slots=True)
class UserInfo:
    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def with_authenticated(self) -> "UserInfo":
        """The same user in `system:authenticated`, unless anonymous or already placed."""
        if self.name == ANONYMOUS or AUTHENTICATED in self.groups or UNAUTHENTICATED in self.groups:
            return self
        return UserInfo(self.name, self.uid, (*self.groups, AUTHENTICATED), self.extra)

    def as_json(self) -> dict[str, object]:
        """`authentication.k8s.io/v1 UserInfo`."""
        body: dict[str, object] = {"username": self.name}
        if self.uid:
            body["uid"] = self.uid
        if self.groups:
            body["groups"] = list(self.groups)
        if self.extra:
            body["extra"] = {key: list(values) for key, values in self.extra.items()}
        return body


ANONYMOUS_USER = UserInfo(ANONYMOUS, groups=(UNAUTHENTICATED,))


Headers = CIMultiDict[str] | CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the connection and the request head carry. `certificate` is the verified peer's leaf as DER."""

    certificate: bytes | None
    headers: Headers
    path: str


class Authenticator(Protocol):
    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The user, or None when this kind of credential is absent. Raises AuthenticationFailed when it is bad."""
        ...


class TokenAuthenticator(Protocol):
    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        """The user, or None when the token is not of this kind. Raises AuthenticationFailed."""
        ...
