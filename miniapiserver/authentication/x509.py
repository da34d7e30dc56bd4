"""Client certificates: CN is the user, every O a group.

My job: the TLS peer's leaf certificate → UserInfo, against `--client-ca-file`. `certs.identity` checks chain, time and
usage; I keep its answers for a few seconds because every request of a connection shows the same certificate.
"""

from collections.abc import Callable

from certs.errors import UnverifiedCertificate
from certs.identity import ClientCAs
from miniapiserver.authentication.interface import AuthenticationFailed, Credentials, UserInfo

#: The same as upstream's token cache: short enough that an expired certificate is noticed at once.
REMEMBERED_SECONDS = 10.0
REMEMBERED_CERTIFICATES = 4096


class CertificateAuthenticator:
    """Lives as long as the server. `now` is a monotonic clock in seconds."""

    def __init__(self, cas: ClientCAs, now: Callable[[], float]) -> None:
        self._cas, self._now = cas, now
        self._known: dict[bytes, tuple[float, UserInfo]] = {}

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        certificate = credentials.certificate
        if certificate is None:
            return None
        until, user = self._known.get(certificate, (0.0, None))
        if user is not None and self._now() < until:
            return user
        try:
            identity = self._cas.authenticate(certificate)
        except UnverifiedCertificate as error:
            raise AuthenticationFailed(f"client certificate: {error}") from error
        if not identity.user:
            return None
        extra = {"authentication.kubernetes.io/credential-id": (f"X509SHA256={identity.fingerprint_sha256}",)}
        user = UserInfo(identity.user, identity.uid or "", tuple(identity.groups), extra)
        if len(self._known) >= REMEMBERED_CERTIFICATES:
            self._known.clear()
        self._known[certificate] = (self._now() + REMEMBERED_SECONDS, user)
        return user
