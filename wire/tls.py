"""TLS contexts per role, which follow their files.

I make `ssl.SSLContext`s and notice when a certificate, key or CA file was replaced; I never open a connection.
Neighbours: `certs` writes the files, `wire.http` and `wire.stream` use the contexts.
Rule: TLS 1.2 or later; a client context verifies unless its caller says, by name, that it must not.
"""

import os
import ssl
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

from wire.verification import DescribingSSLObject

Path = str | PathLike[str]
Stamp = tuple[tuple[int, int, int], ...]

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME. An expired client certificate should be answered with 401 by the
# authenticator, as upstream does, not with a TLS alert nobody can read.
_NO_CHECK_TIME = 0x200000


def server_context(
    cert: Path, key: Path, client_ca: Sequence[Path] = (), require: bool = False
) -> "ReloadingServerContext":
    """A context for a listener. With `client_ca` a client certificate is asked for; with `require` demanded."""
    return ReloadingServerContext(ssl.PROTOCOL_TLS_SERVER).follow(cert, key, client_ca, require)


class ReloadingServerContext(ssl.SSLContext):
    """A server context that, at a handshake, notices replaced files and answers with the new ones.

    The listener keeps this object for ever. The SNI callback runs at every handshake (also without SNI) and
    swaps in a fresh context for that connection only; a half-written file keeps the last good one.
    """

    def follow(self, cert: Path, key: Path, client_ca: Sequence[Path], require: bool) -> "ReloadingServerContext":
        def make() -> ssl.SSLContext:
            fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _load_server(fresh, cert, key, client_ca, require)
            return fresh

        self._followed = Followed((cert, key, *client_ca), make, self)
        _load_server(self, cert, key, client_ca, require)
        # Typed as None by typeshed; a callable is what the ssl module documents.
        self.sni_callback = self._on_handshake
        return self

    def _on_handshake(self, handshake: Any, server_name: str | None, context: ssl.SSLContext) -> None:
        if (current := self._followed.context) is not self:
            handshake.context = current


def _load_server(context: ssl.SSLContext, cert: Path, key: Path, client_ca: Sequence[Path], require: bool) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    # Session tickets would let a client resume with an identity that was revoked since, and cost CPU per handshake.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    for ca in client_ca:
        context.load_verify_locations(cafile=str(ca))
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED if require else ssl.CERT_OPTIONAL
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)


def client_context(
    ca: Path | None, cert: Path | None = None, key: Path | None = None, verify: bool = True, ca_data: str | None = None
) -> ssl.SSLContext:
    """A context for dialing. `verify=False` checks nothing at all and still presents the client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.sslobject_class = DescribingSSLObject
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None or ca_data is not None:
        context.load_verify_locations(cafile=str(ca) if ca is not None else None, cadata=ca_data)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


class ClientTLS:
    """Client contexts made from files, remade when a file changes (rotation). Ask for `.context` at each dial."""

    def __init__(self, ca: Path | None, cert: Path | None = None, key: Path | None = None, verify: bool = True) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify
        self._followed = Followed((ca, cert, key), self._make)

    @property
    def context(self) -> ssl.SSLContext:
        return self._followed.context

    def _make(self) -> ssl.SSLContext:
        return client_context(self.ca, self.cert, self.key, self.verify)


class Followed:
    """The context that `make` makes of some files, made anew when one of them changes.

    Between the two files of a rotation the last good pair still stands; without one, `make`'s error does.
    """

    def __init__(
        self, paths: Sequence[Path | None], make: Callable[[], ssl.SSLContext], first: ssl.SSLContext | None = None
    ) -> None:
        """`first`: what stands until a file changes, if somebody makes that of them now."""
        self._paths = [path for path in paths if path]
        self._make = make
        self._stamp: Stamp = stamp(*self._paths) if first is not None else ()
        self._context = first

    @property
    def context(self) -> ssl.SSLContext:
        now = stamp(*self._paths)
        if self._context is None or now != self._stamp:
            try:
                self._context, self._stamp = self._make(), now
            except (OSError, ssl.SSLError):
                if self._context is None:
                    raise
        return self._context


def stamp(*paths: Path) -> Stamp:
    """What changes when a file is replaced or rewritten; a missing file has a stamp of its own."""
    marks = []
    for path in paths:
        try:
            status = os.stat(path)
            marks.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)
