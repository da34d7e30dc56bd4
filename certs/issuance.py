"""Issue what a cluster lacks, keep what is good, renew what is about to end.

My job: compare the table of `profiles` with the files of a state directory and bring the files up to it, all or
nothing. `authority` signs, `layout.Staging` writes. Rule: what we did not make and cannot vouch for (a foreign
certificate, a key that does not match) is an error, never overwritten.
"""

import enum
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from certs import keys, kubeconfig, sshkeys
from certs.authority import Authority, KeyPair, is_signed_by, load_certificate, public_key_of
from certs.errors import ForeignCertificate, InvalidKey, KeyMismatch, KubeconfigError
from certs.layout import PRIVATE, PUBLIC, FilePair, Layout, Staging, locked
from certs.profiles import (
    Cluster,
    Combined,
    Home,
    InKubeconfig,
    Pair,
    Profile,
    Signer,
    Usage,
    profiles,
    signers,
)
from certs.requests import common_name_of, organizations_of

# The kubelet rotates at 70 to 90 per cent of a lifetime; we look only when asked, so at the early end of that.
RENEW_AT: Final = 0.7
_EXTENDED: Final = {Usage.SERVER: x509.OID_SERVER_AUTH, Usage.CLIENT: x509.OID_CLIENT_AUTH}
_TOKEN_ALPHABET: Final = string.ascii_lowercase + string.digits


class Action(enum.Enum):
    """What became of one row."""

    ISSUED = "issued"
    KEPT = "kept"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the report."""

    name: str
    action: Action
    path: Path
    expires: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """How the cluster's programs reach the API server: what every kubeconfig says."""

    cluster_name: str
    server: str


@dataclass(slots=True)
class Issuance:
    """One run of `init` over one state directory."""

    layout: Layout
    cluster: Cluster
    access: Access
    now: datetime
    staging: Staging = field(default_factory=Staging)
    outcomes: list[Outcome] = field(default_factory=list)
    _authorities: dict[Signer, Authority] = field(default_factory=dict)

    def run(self) -> list[Outcome]:
        """Raises CertsError, and then nothing has been written."""
        with locked(self.layout.state_dir):
            for signer, files in signers(self.layout, self.cluster).items():
                self._authorities[signer] = self._authority(signer, files)
            for profile in profiles(self.layout, self.cluster):
                self._certificate(profile)
            self._service_account_keys()
            self._bootstrap()
            self._ssh()
            self.staging.commit()
        return self.outcomes

    # -- authorities

    def _authority(self, signer: Signer, files: FilePair) -> Authority:
        cert, key = self.staging.read(files.cert), self.staging.read(files.key)
        if cert is None and key is None:
            authority, action, reason = Authority.create(signer.value, self.now), Action.ISSUED, ""
        else:
            authority = Authority.load(files.cert, files.key)
            reason = _too_old(authority.certificate, self.now)
            action = Action.RENEWED if reason else Action.KEPT
            if reason:
                authority = Authority.renew(common_name_of(authority.certificate.subject), authority.key, self.now)
        if action is not Action.KEPT:
            self._stage(files, authority.pair)
        name, expires = (
            signer.value if signer is not Signer.CLUSTER else "ca",
            authority.certificate.not_valid_after_utc,
        )
        self.outcomes.append(Outcome(name, action, files.cert, expires, reason))
        return authority

    # -- certificates

    def _certificate(self, profile: Profile) -> None:
        authority = self._authorities[profile.signer]
        present = self._present(profile.home)
        if present is None:
            action, reason = Action.ISSUED, ""
        else:
            reason = self._verdict(profile, present, authority)
            action = Action.RENEWED if reason else Action.KEPT
        pair = present if present and action is Action.KEPT else authority.issue(profile, self.now)
        if action is not Action.KEPT:
            self._place(profile.home, pair)
        self._kubeconfig(profile, pair)
        expires = load_certificate(pair.cert, profile.name).not_valid_after_utc
        self.outcomes.append(Outcome(profile.name, action, _path(profile.home), expires, reason))

    def _verdict(self, profile: Profile, present: KeyPair, authority: Authority) -> str:
        """Why a present certificate must be renewed; empty if it is good. Raises if it is not ours."""
        where = str(_path(profile.home))
        certificate = load_certificate(present.cert, where)
        if not keys.belong_together(keys.load_private(present.key, where), public_key_of(certificate, where)):
            raise KeyMismatch(f"{where}: the private key does not belong to the certificate")
        if not is_signed_by(certificate, authority.certificate):
            ca = signers(self.layout)[profile.signer].cert
            raise ForeignCertificate(f"{where} was not signed by {ca}: move it away to have it issued anew")
        return _too_old(certificate, self.now) or _differs(certificate, profile)

    def _present(self, home: Home) -> KeyPair | None:
        match home:
            case Pair(files):
                return self._present_pair(files)
            case Combined(file, _):
                both = self.staging.read(file)
                return None if both is None else KeyPair(both, both)
            case InKubeconfig(path):
                return self._present_in_kubeconfig(path)

    def _present_pair(self, files: FilePair) -> KeyPair | None:
        cert, key = self.staging.read(files.cert), self.staging.read(files.key)
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            present, absent = (files.key, files.cert) if cert is None else (files.cert, files.key)
            raise KeyMismatch(f"{present} exists without {absent}: put it back, or move {present} away")
        return KeyPair(cert, key)

    def _present_in_kubeconfig(self, path: Path) -> KeyPair | None:
        content = self.staging.read(path)
        if content is None:
            return None
        credentials = kubeconfig.parse(content, path).credentials()
        if credentials.client_cert is None or credentials.client_key is None:
            raise KubeconfigError(f"{path} holds no client certificate: move it away to have it issued anew")
        return KeyPair(credentials.client_cert, credentials.client_key)

    def _place(self, home: Home, pair: KeyPair) -> None:
        match home:
            case Pair(files):
                self._stage(files, pair)
            case Combined(file, _):
                self.staging.add(file, pair.cert + pair.key, PRIVATE)
            case InKubeconfig(_):
                pass  # `_kubeconfig` writes it

    def _kubeconfig(self, profile: Profile, pair: KeyPair) -> None:
        """Written whenever it says anything else than it should: another server, another CA, another certificate."""
        name, server = self.access.cluster_name, self.access.server
        ca = self._authorities[Signer.CLUSTER].pair.cert
        match profile.home:
            case InKubeconfig(path):
                user = profile.common_name if path != self.layout.admin else f"{name}-admin"
                entry = kubeconfig.Entry.with_certificate(name, user, server, ca, pair.cert, pair.key)
                self._stage_changed(path, kubeconfig.render(entry))
            case Combined(file, path):
                entry = kubeconfig.Entry.with_files(name, profile.common_name, server, ca, file, file)
                self._stage_changed(path, kubeconfig.render(entry))
            case Pair(_):
                pass

    # -- what is no certificate

    def _service_account_keys(self) -> None:
        files = self.layout.service_account
        private, public = self.staging.read(files.key), self.staging.read(files.cert)
        if private is None and public is not None:
            raise KeyMismatch(f"{files.cert} exists without {files.key}: put it back, or move {files.cert} away")
        action = Action.KEPT
        if private is None:
            key: keys.PrivateKey = keys.new_rsa_key()
            action = Action.ISSUED
        else:
            key = keys.load_private(private, str(files.key))
        if public is not None and not keys.belong_together(key, keys.load_public(public, str(files.cert))):
            raise KeyMismatch(f"{files.key} is not the private key of {files.cert}")
        if private is None or public is None:
            self._stage(files, KeyPair(keys.public_pem(key.public_key()), keys.private_pem(key)))
        self.outcomes.append(Outcome("sa", action, files.key))

    def _bootstrap(self) -> None:
        path = self.layout.bootstrap_token
        content = self.staging.read(path)
        token = content.decode("ascii", "replace").strip() if content is not None else new_bootstrap_token()
        if not is_bootstrap_token(token):
            raise InvalidKey(f"{path} holds no bootstrap token (6 characters, a dot, 16 characters)")
        if content is None:
            self.staging.add(path, f"{token}\n".encode(), PRIVATE)
        ca = self._authorities[Signer.CLUSTER].pair.cert
        entry = kubeconfig.Entry.with_token(
            self.access.cluster_name, "tls-bootstrap-token-user", self.access.server, ca, token
        )
        self._stage_changed(self.layout.bootstrap_kubelet, kubeconfig.render(entry))
        self.outcomes.append(Outcome("bootstrap-token", Action.KEPT if content else Action.ISSUED, path))

    def _ssh(self) -> None:
        user = self._ssh_key(self.layout.ssh_user_key, "kube-apiserver")
        known_hosts = []
        for node in self.cluster.nodes:
            files = self.layout.node(node.name)
            host = self._ssh_key(files.ssh_host_key, node.name)
            known_hosts += [sshkeys.known_hosts_line(name, 22, host) for name in (node.name, node.ip)]
            self._stage_changed(files.ssh_authorized_keys, f"{user}\n".encode())
        if known_hosts:
            self._stage_changed(self.layout.ssh_known_hosts, _with_lines(self, known_hosts))

    def _ssh_key(self, path: Path, comment: str) -> str:
        private = self.staging.read(path)
        if private is not None:
            action, line = Action.KEPT, f"{sshkeys.public_line(private, str(path))} {comment}"
        else:
            pair = sshkeys.new_ssh_key(comment)
            action, line = Action.ISSUED, pair.public
            self.staging.add(path, pair.private, PRIVATE)
        self._stage_changed(path.with_name(f"{path.name}.pub"), f"{line}\n".encode(), PUBLIC)
        self.outcomes.append(Outcome(f"ssh {comment}", action, path))
        return line

    # -- files

    def _stage(self, files: FilePair, pair: KeyPair) -> None:
        self.staging.add(files.cert, pair.cert, PUBLIC)
        self.staging.add(files.key, pair.key, PRIVATE)

    def _stage_changed(self, path: Path, content: bytes, mode: int = PRIVATE) -> None:
        if self.staging.read(path) != content:
            self.staging.add(path, content, mode)


def _with_lines(issuance: Issuance, lines: Sequence[str]) -> bytes:
    """known_hosts with our nodes' lines; lines about other hosts stay."""
    content = issuance.staging.read(issuance.layout.ssh_known_hosts) or b""
    ours = {line.split()[0] for line in lines}
    others = [line for line in content.decode("utf-8", "replace").splitlines() if line.split(" ")[0] not in ours]
    return ("\n".join([*others, *lines]) + "\n").encode()


def _path(home: Home) -> Path:
    match home:
        case Pair(files):
            return files.cert
        case Combined(file, _):
            return file
        case InKubeconfig(path):
            return path


def _too_old(certificate: x509.Certificate, now: datetime) -> str:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end:
        return f"expired {end:%Y-%m-%d}"
    if now >= start + (end - start) * RENEW_AT:
        return f"expires {end:%Y-%m-%d}"
    return "not valid yet" if now < start else ""


def _differs(certificate: x509.Certificate, profile: Profile) -> str:
    """Which part of the certificate is not what the table says."""
    if common_name_of(certificate.subject) != profile.common_name:
        return "another common name"
    if set(organizations_of(certificate.subject)) != set(profile.organizations):
        return "other organizations"
    if _names(certificate) != (set(profile.dns), set(profile.ips)):
        return "other names"
    return "" if _usages(certificate) == {_EXTENDED[usage] for usage in profile.usages} else "other usages"


def _names(certificate: x509.Certificate) -> tuple[set[str], set[str]]:
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set(), set()
    ips = {str(ip) for ip in sans.get_values_for_type(x509.IPAddress)}
    return set(sans.get_values_for_type(x509.DNSName)), ips


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def new_bootstrap_token() -> str:
    def characters(count: int) -> str:
        return "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(count))

    return f"{characters(6)}.{characters(16)}"


def is_bootstrap_token(token: str) -> bool:
    identifier, dot, secret = token.partition(".")
    sized = len(identifier) == 6 and dot == "." and len(secret) == 16
    return sized and all(character in _TOKEN_ALPHABET for character in identifier + secret)
