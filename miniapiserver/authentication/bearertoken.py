"""Bearer tokens: where one may stand in a request, and which authenticator knows it.

My job: take the token from `Authorization` or the WebSocket sub-protocol form, ask the token authenticators in order,
and remember good answers for ten seconds (upstream `token/cache`). Failures are never remembered.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence

from certs.errors import InvalidToken
from certs.jwt import unverified_claims
from miniapiserver.authentication.interface import (
    AuthenticationFailed,
    Credentials,
    TokenAuthenticator,
    UserInfo,
)

WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."
REMEMBERED_SECONDS = 10.0
REMEMBERED_TOKENS = 4096
#: A JWT with many groups stays far below; anything longer is an attack on the decoder.
LONGEST_TOKEN = 65536


class AudienceAgnostic:
    """A kind of token that says nothing about audiences: good for the API server, and for nobody else."""

    def __init__(self, inner: TokenAuthenticator, api_audiences: tuple[str, ...]) -> None:
        self._inner, self._audiences = inner, frozenset(api_audiences)

    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        return await self._inner.authenticate_token(token, audiences) if self._audiences & set(audiences) else None


class BearerTokenAuthenticator:
    def __init__(self, authenticators: Sequence[TokenAuthenticator], audiences: tuple[str, ...],
                 now: Callable[[], float]) -> None:
        self._authenticators, self._audiences, self._now = tuple(authenticators), audiences, now
        self._known: dict[bytes, tuple[float, UserInfo]] = {}

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        token = bearer_token(credentials)
        if not token:
            return None
        key = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()  # the token itself is not kept
        until, user = self._known.get(key, (0.0, None))
        if user is not None and self._now() < until:
            return user
        user = await self.authenticate_token(token, self._audiences)
        if len(self._known) >= REMEMBERED_TOKENS:
            self._known.clear()
        self._known[key] = (self._now() + REMEMBERED_SECONDS, user)
        return user

    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo:
        """Raises AuthenticationFailed when no authenticator vouches for it."""
        failures: list[str] = []
        for authenticator in self._authenticators if len(token) <= LONGEST_TOKEN else ():
            try:
                user = await authenticator.authenticate_token(token, audiences)
            except AuthenticationFailed as error:
                failures.append(str(error))
                continue
            if user is not None:
                return user
        raise AuthenticationFailed("; ".join(failures) or "invalid bearer token")

    def granted_audiences(self, token: str, asked: tuple[str, ...]) -> tuple[str, ...]:
        """For which of the asked audiences a token that `authenticate_token` accepted is good."""
        given = list(self._audiences)
        if token.count(".") == 2:
            try:
                claimed = unverified_claims(token).get("aud") or given
                given = [claimed] if isinstance(claimed, str) else claimed
            except InvalidToken:
                pass
        return tuple(audience for audience in asked if audience in given)

    def forget(self) -> None:
        """Drop remembered answers: something a token depends on was deleted."""
        self._known.clear()


def bearer_token(credentials: Credentials) -> str:
    """The token a request carries, "" if none. Raises AuthenticationFailed for a malformed WebSocket form."""
    header = (credentials.headers.get("Authorization") or "").strip()
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip().split(" ")[0]
    return _websocket_token(credentials.headers.getall("Sec-WebSocket-Protocol", []))


def _websocket_token(lines: list[str]) -> str:
    names = [name.strip() for line in lines for name in line.split(",")]
    tokens = [name.removeprefix(WEBSOCKET_PREFIX) for name in names if name.startswith(WEBSOCKET_PREFIX)]
    if not tokens:
        return ""
    if len(tokens) > 1:
        raise AuthenticationFailed("multiple tokens in Sec-WebSocket-Protocol")
    if len(names) == 1:
        raise AuthenticationFailed("missing additional subprotocol in Sec-WebSocket-Protocol")
    try:
        return base64.urlsafe_b64decode(tokens[0] + "=" * (-len(tokens[0]) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise AuthenticationFailed("malformed token in Sec-WebSocket-Protocol") from error
