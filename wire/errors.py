"""What can go wrong on a wire, as types.

    WireError
    ├── ConnectionLost          the transport ended before the exchange did
    ├── DialError               no connection could be made
    │   ├── DialTimeout
    │   ├── DialRefused
    │   ├── DialUnreachable
    │   ├── NoTunnel            the path itself (ssh, konnectivity) is missing
    │   └── TLSVerificationError
    ├── PeerProtocolError       the peer broke the protocol
    └── UpgradeRefused          the peer answered an upgrade with something other than 101

Rule: types survive up to the one place that turns them into HTTP; nobody reads an error's text to decide.
"""

import errno
import socket
import ssl


class WireError(Exception):
    """Root of everything this library raises."""


class ConnectionLost(WireError):
    """The connection ended early: reset, aborted, or closed while we still wrote."""


class DialError(WireError):
    """A connection that could not be made: where to, by which path, and what came back."""

    def __init__(self, address: str, via: str, reason: str) -> None:
        super().__init__(address, via, reason)
        self.address = address
        self.via = via
        self.reason = reason

    def __str__(self) -> str:
        # Upstream's clients print Go's words for the direct path, and scripts grep for them.
        if self.via == "direct":
            return f"dial tcp {self.address}: {self.reason}"
        return f"dial {self.address} via {self.via}: {self.reason}"


class DialTimeout(DialError):
    """Nobody answered in time."""


class DialRefused(DialError):
    """The host answered: nothing listens there."""


class DialUnreachable(DialError):
    """No route, or the name does not resolve."""


class NoTunnel(DialError):
    """The tunnel that should carry the connection does not stand."""


class TLSVerificationError(DialError):
    """The peer's certificate was not accepted, or the TLS handshake failed.

    `peer_certificate` is the DER of the refused one, where there was one.
    """

    peer_certificate: bytes | None = None

    def __str__(self) -> str:
        # Go prints handshake errors bare: "tls: failed to verify certificate: x509: ...".
        if self.via == "direct":
            return self.reason
        return super().__str__()


class RefusedCertificate(ssl.SSLCertVerificationError):
    """OpenSSL's refusal with the certificate it was about, and the reason in upstream's words. See `verification`."""

    def __init__(self, refusal: ssl.SSLCertVerificationError, certificate: bytes, why: str) -> None:
        super().__init__(*refusal.args)
        self.verify_code = refusal.verify_code
        self.verify_message = refusal.verify_message
        self.certificate = certificate
        self.why = why


class PeerProtocolError(WireError):
    """The peer sent something its protocol does not allow."""


class UpgradeRefused(WireError):
    """The answer to an upgrade request was not 101. `body` is what came with it (bounded)."""

    def __init__(self, status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(f"upgrade refused: status {status}: {body[:200].decode('utf-8', 'replace')}")
        self.status = status
        self.body = body
        self.headers = headers or []


_UNREACHABLE = {
    errno.EHOSTUNREACH: "connect: no route to host",
    errno.ENETUNREACH: "connect: network is unreachable",
    errno.EADDRNOTAVAIL: "connect: cannot assign requested address",
}


def dial_error(address: str, via: str, error: BaseException) -> DialError:
    """The typed form of what a dial or a TLS handshake raised."""
    match error:
        case DialError():
            return error
        case RefusedCertificate():
            refused = TLSVerificationError(address, via, tls_reason(address, error))
            refused.peer_certificate = error.certificate
            return refused
        case ssl.SSLError() | ssl.CertificateError():
            return TLSVerificationError(address, via, tls_reason(address, error))
        case TimeoutError():
            return DialTimeout(address, via, "i/o timeout")
        case ConnectionRefusedError():
            return DialRefused(address, via, "connect: connection refused")
        case socket.gaierror():
            host = address.rpartition(":")[0]
            return DialUnreachable(address, via, f"lookup {host}: no such host")
        case OSError() if error.errno in _UNREACHABLE:
            return DialUnreachable(address, via, _UNREACHABLE[error.errno])
        case ConnectionResetError():
            return DialError(address, via, "read: connection reset by peer")
        case OSError() if error.errno == errno.ENOENT:
            return DialRefused(address, via, "connect: no such file or directory")
    return DialError(address, via, str(error) or type(error).__name__)


# OpenSSL's verify codes (x509_vfy.h) in the words Go uses for the same finding.
_VERIFY_REASONS = {
    9: "x509: certificate has expired or is not yet valid: certificate is not yet valid",
    10: "x509: certificate has expired or is not yet valid: certificate has expired",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
    26: "x509: certificate specifies an incompatible key usage",
}


def verify_reason(code: int, message: str) -> str:
    """OpenSSL's finding without a look at the certificate."""
    return _VERIFY_REASONS.get(code, f"x509: {message}")


def tls_reason(address: str, error: BaseException) -> str:
    """Why a handshake failed, in upstream's words where they exist."""
    if isinstance(error, RefusedCertificate):
        return f"tls: failed to verify certificate: {error.why}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {verify_reason(error.verify_code, error.verify_message)}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "tls: first record does not look like a TLS handshake"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"tls: {error.reason.lower().replace('_', ' ')}"
    return f"tls: {error}"
