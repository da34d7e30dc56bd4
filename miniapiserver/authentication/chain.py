"""The order of authenticators, and what happens when none succeeds.

My job: ask each authenticator in turn (apiserver `authenticator/request/union`); a bad credential never becomes
anonymous.
I own the list, each authenticator owns its own caches. The filters call me, after `requestinfo`.
"""

from collections.abc import Sequence

from miniapiserver.authentication.interface import (
    ANONYMOUS_USER,
    AuthenticationFailed,
    Authenticator,
    Credentials,
    UserInfo,
)


class AuthenticatorChain:
    """`anonymous_paths`: None allows anonymous everywhere, a set only there; `anonymous` False allows it nowhere."""

    def __init__(self, authenticators: Sequence[Authenticator], *, anonymous: bool,
                 anonymous_paths: frozenset[str] | None = None) -> None:
        self._authenticators = tuple(authenticators)
        self._anonymous = anonymous
        self._anonymous_paths = anonymous_paths

    async def authenticate(self, credentials: Credentials) -> UserInfo:
        """Raises AuthenticationFailed: nothing succeeded and anonymous is not allowed, or something was bad."""
        failures: list[str] = []
        for authenticator in self._authenticators:
            try:
                user = await authenticator.authenticate(credentials)
            except AuthenticationFailed as error:
                failures.append(str(error))
                continue
            if user is not None:
                return user.with_authenticated()
        if failures:
            raise AuthenticationFailed("; ".join(failures))
        if not self._allows_anonymous(credentials.path):
            raise AuthenticationFailed("no credentials were presented")
        return ANONYMOUS_USER

    def _allows_anonymous(self, path: str) -> bool:
        return self._anonymous and (self._anonymous_paths is None or path in self._anonymous_paths)
