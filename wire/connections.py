"""The ledger: every connection of this process that matters, as facts.

Each entry says who talks to whom, by which path, and what TLS really did: read from the live ssl_object, never from
configuration. The map, `miniplane paths`, metrics and the demo read this and nothing else. Recording is a few
assignments; certificates are decoded and bytes counted only when somebody looks.
"""

import asyncio
import hashlib
import itertools
import os
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from wire.errors import PeerProtocolError
from wire.protocol.x509 import read_certificate
from wire.stream import Stream

JSON = dict[str, Any]

KEPT = 200  # ended connections that are still shown
SOCKET_MODE = 0o600


class Connection:
    """One entry. Lives in the ledger while the connection does, and a while longer as history."""

    __slots__ = ("_bytes", "_cipher", "_der", "_stream", "_tls", "credentials", "ended", "error", "id", "ledger",
                 "path", "purpose", "source", "started", "target", "verified")  # fmt: skip

    def __init__(
        self, ledger: "Ledger", number: int, source: str, target: str, path: str, purpose: str, credentials: str
    ) -> None:
        self.ledger = ledger
        self.id = number
        self.source = source
        self.target = target
        self.path = path
        self.purpose = purpose
        self.credentials = credentials
        self.started = time.time()
        self.ended: float | None = None
        self.error: str | None = None
        self.verified: str | None = None
        self._tls: str | None = None
        self._cipher: str | None = None
        self._der: bytes | None = None
        self._stream: Stream | None = None
        self._bytes = (0, 0)

    def connected(self, stream: Stream, ca: str | None = None) -> None:
        """The connection stands: take the facts of its TLS. `ca` names the bundle that a verification would mean.

        The entry closes with the stream.
        """
        self._stream = stream
        self.observe(stream.get_extra_info("ssl_object"), ca)
        stream.when_closed(lambda: self.close(stream.error))

    def observe(self, ssl_object: Any, ca: str | None = None) -> None:
        """Read version, cipher, peer certificate and whether it was verified from a live ssl_object."""
        if ssl_object is None:
            return
        self._tls = ssl_object.version()
        cipher = ssl_object.cipher()
        self._cipher = cipher[0] if cipher else None
        self._der = ssl_object.getpeercert(binary_form=True)
        was_verified = ssl_object.context.verify_mode is not ssl.CERT_NONE and self._der is not None
        self.verified = (ca or "system") if was_verified else None

    def refused(self, certificate: bytes | None) -> None:
        """The handshake failed over this certificate (DER). Nothing was said to the peer beyond the hello."""
        self._der = certificate

    def close(self, error: BaseException | str | None = None) -> None:
        """The connection has ended. Idempotent."""
        if self.ended is None:
            self.ended = time.time()
            self.error = str(error) if error is not None else None
            if self._stream is not None:
                self._bytes = (self._stream.bytes_in, self._stream.bytes_out)
                self._stream = None
            self.ledger._ended(self)

    @property
    def state(self) -> str:
        if self.ended is not None:
            return "failed" if self.error is not None else "closed"
        return "dialing" if self._stream is None and self._tls is None else "open"

    def facts(self) -> JSON:
        """The entry as JSON. Certificates are decoded here, not when the connection is made."""
        received, sent = (self._stream.bytes_in, self._stream.bytes_out) if self._stream else self._bytes
        return {
            "id": self.id,
            "from": self.source,
            "to": self.target,
            "path": self.path,
            "purpose": self.purpose,
            "tls": {"version": self._tls, "cipher": self._cipher} if self._tls else None,
            "peerCertificate": _certificate(self._der) if self._der else None,
            "verifiedBy": self.verified,
            "credentials": self.credentials,
            "bytesIn": received,
            "bytesOut": sent,
            "state": self.state,
            "error": self.error,
            "started": _rfc3339(self.started),
            "ended": _rfc3339(self.ended) if self.ended is not None else None,
        }


class Ledger:
    """The connections of one process."""

    def __init__(self, kept: int = KEPT) -> None:
        self._live: dict[int, Connection] = {}
        self._history: deque[Connection] = deque(maxlen=kept)
        self._numbers = itertools.count(1)

    def record(
        self, *, source: str, target: str, path: str = "direct", purpose: str = "", credentials: str = "none"
    ) -> Connection:
        """A connection that is about to be made. Its owner calls `connected` and, at the end, `close`."""
        connection = Connection(self, next(self._numbers), source, target, path, purpose, credentials)
        self._live[connection.id] = connection
        return connection

    def _ended(self, connection: Connection) -> None:
        self._live.pop(connection.id, None)
        self._history.append(connection)

    @property
    def live(self) -> int:
        return len(self._live)

    def snapshot(self) -> list[JSON]:
        """Every entry, live ones first, newest first."""
        entries = [*reversed(self._live.values()), *reversed(self._history)]
        return [entry.facts() for entry in entries]


def _certificate(der: bytes) -> JSON:
    shown: JSON = {"sha256": hashlib.sha256(der).hexdigest()}
    with suppress(PeerProtocolError):
        facts = read_certificate(der)
        shown |= {
            "subject": facts.subject,
            "issuer": facts.issuer,
            "sans": list(facts.sans),
            "notBefore": facts.not_before,
            "notAfter": facts.not_after,
        }
    return shown


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@asynccontextmanager
async def serve_ledger(ledger: Ledger, path: str | os.PathLike[str]) -> AsyncIterator[None]:
    """Answer every connection to a UNIX socket with the snapshot as one JSON array, then close it."""
    where = os.fspath(path)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(orjson.dumps(ledger.snapshot()) + b"\n")
            await writer.drain()
        writer.close()

    with suppress(FileNotFoundError):
        os.unlink(where)
    server = await asyncio.start_unix_server(answer, where)
    os.chmod(where, SOCKET_MODE)
    try:
        yield
    finally:
        server.close()
        with suppress(FileNotFoundError):
            os.unlink(where)


async def read_ledger(path: str | os.PathLike[str]) -> list[JSON]:
    """The snapshot of a running process. Raises OSError if nobody serves it."""
    reader, writer = await asyncio.open_unix_connection(os.fspath(path))
    try:
        found: list[JSON] = orjson.loads(await reader.read())
        return found
    finally:
        writer.close()
