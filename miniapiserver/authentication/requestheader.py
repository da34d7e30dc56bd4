"""The front proxy's word for who is asking.

My job: trust `X-Remote-*` headers from a peer whose certificate chains to `--requestheader-client-ca-file` and whose
CN is in `--requestheader-allowed-names`, and from nobody else. The chain asks me first; the filters strip the headers
afterwards.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from certs.errors import UnverifiedCertificate
from certs.identity import ClientCAs
from miniapiserver.authentication.interface import Credentials, Headers, UserInfo


@dataclass(frozen=True, slots=True)
class RequestHeaderNames:
    username: tuple[str, ...] = ("X-Remote-User",)
    uid: tuple[str, ...] = ("X-Remote-Uid",)
    group: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefix: tuple[str, ...] = ("X-Remote-Extra-",)


class RequestHeaderAuthenticator:
    """`allowed_names` empty means any certificate of the CA (upstream's rule)."""

    def __init__(self, cas: ClientCAs, allowed_names: tuple[str, ...], names: RequestHeaderNames) -> None:
        self._cas, self._allowed, self._names = cas, allowed_names, names

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        user = _first(credentials.headers, self._names.username)
        if not user or credentials.certificate is None:
            return None
        try:
            proxy = self._cas.authenticate(credentials.certificate)
        except UnverifiedCertificate:
            return None  # not the front proxy: its headers are worth nothing, its own credentials decide
        if self._allowed and proxy.user not in self._allowed:
            return None
        groups = tuple(value for name in self._names.group for value in credentials.headers.getall(name, []))
        return UserInfo(user, _first(credentials.headers, self._names.uid), groups, self._extra(credentials.headers))

    def _extra(self, headers: Headers) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        for name in set(headers):
            for prefix in self._names.extra_prefix:
                if name.lower().startswith(prefix.lower()):
                    extra[unquote(name[len(prefix):]).lower()] = tuple(headers.getall(name, []))
        return extra


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := headers.get(name))), "")
