"""Why a peer's certificate was refused: the certificate kept, and the reason in the words Go's crypto/x509 uses.

My job: an `ssl.SSLObject` that, when OpenSSL refuses the peer, still reads which certificate it was, and says what a
kube-apiserver would have said. OpenSSL decides; I only describe. Neighbours: `tls` puts me into client contexts,
`errors` carries what I raise.
"""

import calendar
import ipaddress
import ssl
import time
from typing import Any

from wire.errors import PeerProtocolError, RefusedCertificate, verify_reason
from wire.protocol.x509 import CertificateFacts, read_certificate

MOST_NAMES = 100  # Go counts the names of a longer list instead of listing them


class DescribingSSLObject(ssl.SSLObject):
    """A client's end of TLS. A refused certificate is raised as `RefusedCertificate`."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            der = _leaf(self)
            if der is None:
                raise
            why = explain(der, self.server_hostname or "", error.verify_code, error.verify_message, time.time())
            raise RefusedCertificate(error, der, why) from error


def _leaf(ended: ssl.SSLObject) -> bytes | None:
    """The certificate that was refused. The public method is Python 3.13's; the object below it always had it."""
    inner: Any = ended if hasattr(ended, "get_unverified_chain") else getattr(ended, "_sslobj", None)
    try:
        chain = inner.get_unverified_chain()
    except (AttributeError, ValueError, ssl.SSLError):
        return None
    if not chain:
        return None
    first = chain[0]
    return first if isinstance(first, bytes) else ssl.PEM_cert_to_DER_cert(first.public_bytes())


def explain(der: bytes, host: str, code: int, message: str, now: float) -> str:
    """The finding as Go would report it: it looks at the dates first, then at the name, then at who signed."""
    try:
        facts = read_certificate(der)
        return _wrong_date(facts, now) or _wrong_name(facts, host) or verify_reason(code, message)
    except (PeerProtocolError, ValueError):
        return verify_reason(code, message)


def _wrong_date(facts: CertificateFacts, now: float) -> str:
    said = ""
    if now < _seconds(facts.not_before):
        said = f"is before {facts.not_before}"
    elif now > _seconds(facts.not_after):
        said = f"is after {facts.not_after}"
    if not said:
        return ""
    current = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return f"x509: certificate has expired or is not yet valid: current time {current} {said}"


def _seconds(rfc3339: str) -> float:
    return calendar.timegm(time.strptime(rfc3339, "%Y-%m-%dT%H:%M:%SZ"))


def _wrong_name(facts: CertificateFacts, host: str) -> str:
    addresses = [name for name in facts.sans if _address(name) is not None]
    names = [name for name in facts.sans if _address(name) is None]
    wanted = _address(host)
    if not host or (wanted is not None and any(_address(name) == wanted for name in addresses)):
        return ""
    if wanted is None and any(_covers(name, host) for name in names):
        return ""
    if wanted is not None and not addresses:
        return f"x509: cannot validate certificate for {host} because it doesn't contain any IP SANs"
    valid = addresses if wanted is not None else names
    if not valid:
        return f"x509: certificate is not valid for any names, but wanted to match {host}"
    if len(valid) >= MOST_NAMES:
        return f"x509: certificate is valid for {len(valid)} names, but none matched {host}"
    return f"x509: certificate is valid for {', '.join(valid)}, not {host}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _covers(pattern: str, host: str) -> bool:
    """RFC 6125 as Go reads it: a wildcard is the whole first label and stands for exactly one."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return pattern == host
