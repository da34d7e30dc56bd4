"""What can go wrong with certificates, as types.

My job: one class for each failure somebody catches; cryptography's and PyYAML's own exceptions stop at this package's
door and become one of these.

    CertsError
    ├── StateDirError          a file cannot be read or written
    ├── AuthorityError         a CA is incomplete, no CA, or has expired beyond repair
    ├── KeyMismatch            a private key does not belong to its certificate
    ├── ForeignCertificate     a certificate was signed by another CA than the one beside it
    ├── InvalidKey             not a private or public key we read
    ├── InvalidCertificate     not a certificate
    ├── InvalidCSR             not a certificate signing request, or its signature is wrong
    ├── UnverifiedCertificate  a client certificate proves nothing
    │   └── NoIdentity         it verifies, but names nobody: upstream has "no opinion" and goes on
    ├── InvalidToken           a JWT is malformed, forged, or outside its time
    └── KubeconfigError        a kubeconfig is malformed or lacks what was asked of it
"""


class CertsError(Exception):
    """Root of everything this package raises."""


class StateDirError(CertsError):
    """A file of the state directory cannot be read or written."""


class AuthorityError(CertsError):
    """A certificate authority is incomplete or unfit to sign."""


class KeyMismatch(CertsError):
    """A private key does not belong to its certificate."""


class ForeignCertificate(CertsError):
    """A certificate was signed by another CA than the one it lies beside."""


class InvalidKey(CertsError):
    """Not a key, or of a kind we do not use."""


class InvalidCertificate(CertsError):
    """Not an X.509 certificate."""


class InvalidCSR(CertsError):
    """Not a certificate signing request, or its signature is wrong."""


class UnverifiedCertificate(CertsError):
    """A client certificate that proves nothing: wrong CA, time, or use."""


class NoIdentity(UnverifiedCertificate):
    """Verified, but the subject has no common name (x509 authenticator: no opinion, the next one is asked)."""


class InvalidToken(CertsError):
    """A JWT that is malformed, not signed by one of our keys, or outside its time."""


class KubeconfigError(CertsError):
    """A kubeconfig that is malformed or lacks what was asked of it."""
