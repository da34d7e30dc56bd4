"""A small blocking client of the API server, for commands that live a second.

My job: HTTPS with a kubeconfig's credentials over one kept-alive connection. The long-lived programs use
`wire.apiclient` (asyncio, aiohttp); a command that must be over before those are imported uses me.
"""

import http.client
import json
import os
import ssl
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from certs import kubeconfig
from certs.errors import CertsError
from miniplane.errors import MiniplaneError

TIMEOUT: Final = 10.0


class Unreachable(MiniplaneError):
    """No HTTP answer: refused, cut off, or TLS did not come about."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one response."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(slots=True)
class APIClient:
    """One connection to one API server. `with` it."""

    host: str
    port: int
    context: ssl.SSLContext
    headers: dict[str, str] = field(default_factory=dict)
    _connection: http.client.HTTPSConnection | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """Raises Unreachable if the kubeconfig is not there or not usable."""
        try:
            credentials = kubeconfig.load(path).credentials()
        except CertsError as error:
            raise Unreachable(str(error)) from error
        target = urllib.parse.urlsplit(credentials.server)
        headers = {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
        return cls(target.hostname or "", target.port or 443, tls_context(credentials), headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(self, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> Answer:
        """Raises Unreachable. Tried once more on a new connection if a kept one had been closed meanwhile."""
        kept = self._connection is not None
        try:
            return self._once(method, path, body, timeout)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or method != "GET":
                raise Unreachable(f"https://{self.host}:{self.port}: {error}") from error
        return self.request(method, path, body, timeout)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def _once(self, method: str, path: str, body: Any, timeout: float) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.context)
        headers = {"Accept": "application/json", "User-Agent": "miniplane", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        answer = Answer(response.status, response.read())
        if response.will_close:
            self.close()
        return answer


def tls_context(credentials: kubeconfig.Credentials) -> ssl.SSLContext:
    """Verifies against the kubeconfig's CA alone, and presents its client certificate if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if credentials.ca is not None:
        context.load_verify_locations(cadata=credentials.ca.decode("ascii"))
    if credentials.client_cert is not None and credentials.client_key is not None:
        _load_cert_chain(context, credentials.client_cert, credentials.client_key)
    return context


def _load_cert_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """OpenSSL reads a certificate and key from files only; this one never touches a disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, cert + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        with suppress(OSError):
            os.close(descriptor)
