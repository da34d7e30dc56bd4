"""The ledger: every connection of this process that matters, as facts.

Each entry says who talks to whom, by which path, and what TLS really did: read from the live ssl_object, never from
configuration. The map, `miniplane paths`, metrics and the demo read this and nothing else. Recording is a few
assignments; certificates are decoded and bytes counted only when somebody looks.
"""

import enum
import hashlib
import itertools
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from wire.errors import PeerProtocolError
from wire.protocol.x509 import read_certificate

JSON = dict[str, Any]

KEPT = 200  # ended connections that are still shown


class Protection(enum.Enum):
    """What a stranger between the two ends could do, by the live TLS object."""

    VERIFIED = "verified"  # nothing
    UNVERIFIED = "unverified"  # stand in between: encrypted, but to whom nobody checked
    PLAIN = "plain"  # read and write along
    NONE = "none"  # there was no connection


class Carrier(Protocol):
    """What an entry follows: a `wire.stream.Stream`, or whatever else carries bytes over one connection."""

    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def error(self) -> BaseException | str | None: ...
    def get_extra_info(self, name: str) -> Any: ...
    def when_closed(self, callback: Callable[[], None]) -> None: ...


@dataclass(slots=True)
class Total:
    """What all connections of one path and protection amount to."""

    live: int = 0
    ended: int = 0
    failed: int = 0
    received: int = 0
    sent: int = 0


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
        self._stream: Carrier | None = None
        self._bytes = (0, 0)

    def connected(self, stream: Carrier, ca: str | None = None) -> None:
        """The connection stands: take the facts of its TLS. `ca` names the bundle that a verification would mean.

        The entry closes with the stream.
        """
        self._stream = stream
        self.observe(stream.get_extra_info("ssl_object"), ca)
        stream.when_closed(lambda: self.close(stream.error))

    def secured(self, carrier: Carrier, version: str, cipher: str, verified_by: str) -> None:
        """The connection stands, its peer verified and all bytes encrypted by what is no TLS (SSH)."""
        self._tls, self._cipher, self.verified = version, cipher, verified_by
        self.connected(carrier)

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
    def bytes(self) -> tuple[int, int]:
        """Received and sent, TLS not counted."""
        return (self._stream.bytes_in, self._stream.bytes_out) if self._stream else self._bytes

    @property
    def protection(self) -> Protection:
        if self._tls is not None:
            return Protection.VERIFIED if self.verified is not None else Protection.UNVERIFIED
        if self._stream is not None or any(self._bytes):
            return Protection.PLAIN
        # Refused before it was one, or over before a byte went through it: nothing was exposed.
        return Protection.NONE

    @property
    def state(self) -> str:
        if self.ended is not None:
            return "failed" if self.error is not None else "closed"
        return "dialing" if self._stream is None and self._tls is None else "open"

    def facts(self) -> JSON:
        """The entry as JSON. Certificates are decoded here, not when the connection is made."""
        received, sent = self.bytes
        return {
            "id": self.id,
            "from": self.source,
            "to": self.target,
            "path": self.path,
            "purpose": self.purpose,
            "tls": {"version": self._tls, "cipher": self._cipher} if self._tls else None,
            "peerCertificate": _certificate(self._der) if self._der else None,
            "verifiedBy": self.verified,
            "protection": self.protection.value,
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
        self._past: dict[tuple[str, Protection], Total] = {}
        self._watchers: list[set[Connection]] = []

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
        total = self._past.setdefault((connection.path, connection.protection), Total())
        received, sent = connection.bytes
        total.received += received
        total.sent += sent
        if connection.error is None:
            total.ended += 1
        else:
            total.failed += 1
        for watcher in self._watchers:
            watcher.add(connection)

    def totals(self) -> dict[tuple[str, Protection], Total]:
        """By path and protection, since the process began."""
        found = {key: replace(total) for key, total in self._past.items()}
        for connection in self._live.values():
            total = found.setdefault((connection.path, connection.protection), Total())
            received, sent = connection.bytes
            total.live += 1
            total.received += received
            total.sent += sent
        return found

    @contextmanager
    def watched(self) -> Iterator[set[Connection]]:
        """A set into which ended connections fall, for one who follows what changes and empties it."""
        ended: set[Connection] = set()
        self._watchers.append(ended)
        try:
            yield ended
        finally:
            self._watchers.remove(ended)

    def standing(self) -> Iterable[Connection]:
        """The live ones."""
        return self._live.values()

    @property
    def live(self) -> int:
        return len(self._live)

    def snapshot(self) -> list[JSON]:
        """Every entry, live ones first, newest first."""
        entries = [*reversed(self._live.values()), *reversed(self._history)]
        return [entry.facts() for entry in entries]


class ClientCertificate:
    """A certificate file as the ledger names it; read again when it was replaced."""

    def __init__(self, cert: str | PathLike[str] | None) -> None:
        self._cert = Path(cert) if cert else None
        self._shown: tuple[int, str] | None = None

    def shown(self) -> str:
        if self._cert is None:
            return "none"
        try:
            changed = self._cert.stat().st_mtime_ns
            if self._shown is None or self._shown[0] != changed:
                facts = read_certificate(ssl.PEM_cert_to_DER_cert(_first_pem(self._cert.read_text())))
                self._shown = (changed, f"client certificate {facts.subject}")
        except (OSError, ValueError, PeerProtocolError):
            return f"client certificate {self._cert}"
        return self._shown[1]


def _first_pem(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)] + "\n"


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
