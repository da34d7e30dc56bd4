"""What a certificate says about itself, out of its DER bytes: names and dates, nothing trusted.

For showing, never for deciding: verification is OpenSSL's, identity is `certs`'. It is here because a connection that
was *not* verified is the one whose certificate must be shown, and the ssl module decodes only verified ones.
"""

import ipaddress
from dataclasses import dataclass

from wire.errors import PeerProtocolError

# DER tags and the object identifiers we read (RFC 5280).
SEQUENCE, SET, OID, UTC_TIME, GENERALIZED_TIME, OCTET_STRING, BOOLEAN = 0x30, 0x31, 0x06, 0x17, 0x18, 0x04, 0x01
VERSION, EXTENSIONS = 0xA0, 0xA3
DNS_NAME, IP_ADDRESS, URI = 0x82, 0x87, 0x86
ATTRIBUTES = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU", b"\x55\x04\x06": "C"}
SUBJECT_ALT_NAME = b"\x55\x1d\x11"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: str
    not_after: str


def read_certificate(der: bytes) -> CertificateFacts:
    """Subject, issuer, SANs and dates. Raises PeerProtocolError for anything that is no certificate."""
    try:
        certificate = _children(_one(der, SEQUENCE))
        fields = _children(_body(certificate[0], SEQUENCE))
        if fields[0][0] == VERSION:
            fields = fields[1:]
        _serial, _algorithm, issuer, validity, subject, _key, *rest = fields
        not_before, not_after = _children(_body(validity, SEQUENCE))
        extensions = next((value for tag, value in rest if tag == EXTENSIONS), b"")
        return CertificateFacts(
            _name(subject[1]), _name(issuer[1]), _sans(extensions), _time(not_before), _time(not_after)
        )
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise PeerProtocolError(f"not a certificate: {error}") from error


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """The tag and content of each element in a row of DER elements."""
    found, position = [], 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            width = length & 0x7F
            length = int.from_bytes(data[position : position + width], "big")
            position += width
        if position + length > len(data):
            raise ValueError("element is longer than what holds it")
        found.append((tag, data[position : position + length]))
        position += length
    return found


def _body(element: tuple[int, bytes], tag: int) -> bytes:
    if element[0] != tag:
        raise ValueError(f"tag {element[0]:#x}, not {tag:#x}")
    return element[1]


def _one(data: bytes, tag: int) -> bytes:
    return _body(_children(data)[0], tag)


def _name(sequence: bytes) -> str:
    """`CN=a,O=b`, in the order of the certificate."""
    words = []
    for _, relative in _children(sequence):
        for _, attribute in _children(relative):
            (_, kind), (_, value) = _children(attribute)
            words.append(f"{ATTRIBUTES.get(kind, kind.hex())}={value.decode('utf-8', 'replace')}")
    return ",".join(words)


def _time(element: tuple[int, bytes]) -> str:
    """RFC 3339."""
    tag, text = element[0], element[1].decode("ascii")
    if tag == UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    if len(text) < 14 or not text[:14].isdigit():
        raise ValueError(f"time {text!r}")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:{text[12:14]}Z"


def _sans(extensions: bytes) -> tuple[str, ...]:
    if not extensions:
        return ()
    for _, extension in _children(_one(extensions, SEQUENCE)):
        (_, oid), *rest = _children(extension)
        if oid == SUBJECT_ALT_NAME:
            names = _children(_one(_body(rest[-1], OCTET_STRING), SEQUENCE))
            return tuple(_general_name(tag, value) for tag, value in names if tag in (DNS_NAME, IP_ADDRESS, URI))
    return ()


def _general_name(tag: int, value: bytes) -> str:
    return str(ipaddress.ip_address(value)) if tag == IP_ADDRESS else value.decode("ascii")
