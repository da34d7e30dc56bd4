"""Which path which traffic takes: EgressSelectorConfiguration, read strictly, once, at start.

My job: the file's rules (apiserver `egressselector/config.go`) and the table of dialers. The dialers themselves are
rows: a path that is built later adds one line to `BUILDERS`. What is not listed is dialled directly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from miniapiserver.egress.direct import Direct
from miniapiserver.egress.interface import Dialer, EgressType
from miniapiserver.egress.konnectivity import build_grpc, build_http_connect

API_VERSIONS = ("apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1")
KIND = "EgressSelectorConfiguration"
# The old word is still read (conversion of v1alpha1 and v1beta1).
NAMES = {"cluster": EgressType.CLUSTER, "controlplane": EgressType.CONTROL_PLANE, "master": EgressType.CONTROL_PLANE,
         "etcd": EgressType.ETCD}


class InvalidEgressConfiguration(ValueError):
    """A file that can not be used: says which field and why."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Files of a TCP transport. Without a bundle the system's roots count."""

    ca_bundle: str | None
    client_cert: str | None
    client_key: str | None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Transport:
    """Where a proxy listens: a UNIX path, or host and port with TLS."""

    uds: str | None = None
    host: str = ""
    port: int = 0
    tls: TLSFiles | None = None


@dataclass(frozen=True, slots=True)
class EgressSelection:
    """One entry: this traffic, by this protocol, over this transport."""

    egress_type: EgressType
    protocol: str
    transport: Transport = field(default_factory=Transport)


Builder = Callable[[EgressSelection], Dialer]

#: proxyProtocol → how its dialer is made.
BUILDERS: dict[str, Builder] = {
    "Direct": lambda selection: Direct(),
    "HTTPConnect": build_http_connect,
    "GRPC": build_grpc,
}


class EgressSelector:
    """The dialers of this process. Lives as long as it; owns what the dialers hold."""

    def __init__(self, dialers: Mapping[EgressType, Dialer] | None = None) -> None:
        self._direct = Direct()
        self._dialers = dict(dialers or {})

    @classmethod
    def from_file(cls, path: str | Path) -> "EgressSelector":
        """Raises InvalidEgressConfiguration."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidEgressConfiguration(f"egress selector configuration {path}: {error}") from error
        return cls({selection.egress_type: build(selection) for selection in read_configuration(text)})

    def dialer(self, egress_type: EgressType) -> Dialer:
        return self._dialers.get(egress_type, self._direct)

    async def aclose(self) -> None:
        for dialer in self._dialers.values():
            await dialer.aclose()


def build(selection: EgressSelection) -> Dialer:
    builder = BUILDERS.get(selection.protocol)
    if builder is None:
        where = f"egressSelections[{selection.egress_type}].connection.proxyProtocol"
        raise InvalidEgressConfiguration(f"{where}: {selection.protocol} has no dialer here")
    return builder(selection)


def read_configuration(text: str) -> list[EgressSelection]:
    """The selections of a file. Raises InvalidEgressConfiguration, naming the field."""
    try:
        document = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise InvalidEgressConfiguration(f"egress selector configuration: {error}") from error
    top = _mapping(document, "", {"apiVersion", "kind", "egressSelections"})
    if top.get("apiVersion") not in API_VERSIONS or top.get("kind") != KIND:
        found = f"{top.get('apiVersion')}, Kind={top.get('kind')}"
        raise InvalidEgressConfiguration(
            f"egress selector configuration: {found} is not {API_VERSIONS[0]}, Kind={KIND}"
        )
    entries = top.get("egressSelections") or []
    if not isinstance(entries, list) or not entries:
        raise InvalidEgressConfiguration("egressSelections: Required value: at least one entry")
    selections = [_selection(entry, f"egressSelections[{index}]") for index, entry in enumerate(entries)]
    types = [selection.egress_type for selection in selections]
    if repeated := {kind for kind in types if types.count(kind) > 1}:
        raise InvalidEgressConfiguration(f"egressSelections: Duplicate value: {', '.join(sorted(repeated))}")
    return selections


def _selection(entry: object, where: str) -> EgressSelection:
    fields = _mapping(entry, where, {"name", "connection"})
    name = str(fields.get("name", ""))
    if name.lower() not in NAMES:
        raise InvalidEgressConfiguration(
            f'{where}.name: Unsupported value: "{name}": supported values: "cluster", "controlplane", "etcd"'
        )
    connection = _mapping(fields.get("connection"), f"{where}.connection", {"proxyProtocol", "transport"})
    protocol, transport = connection.get("proxyProtocol"), connection.get("transport")
    where += ".connection"
    if protocol not in ("Direct", "HTTPConnect", "GRPC"):
        raise InvalidEgressConfiguration(
            f'{where}.proxyProtocol: Unsupported value: "{protocol}": supported values: "GRPC", "HTTPConnect", "Direct"'
        )
    if protocol == "Direct":
        if transport is not None:
            raise InvalidEgressConfiguration(f"{where}.transport: Invalid value: must be absent for Direct")
        return EgressSelection(NAMES[name.lower()], protocol)
    return EgressSelection(NAMES[name.lower()], protocol, _transport(transport, protocol, f"{where}.transport"))


def _transport(value: object, protocol: str, where: str) -> Transport:
    if value is None:
        raise InvalidEgressConfiguration(f"{where}: Required value: {protocol} needs a transport")
    fields = _mapping(value, where, {"tcp", "uds"})
    tcp, uds = fields.get("tcp"), fields.get("uds")
    if protocol == "GRPC" and tcp is not None:
        # Upstream's GRPC connector knows UNIX sockets only (kubernetes#126339).
        raise InvalidEgressConfiguration(f"{where}.tcp: Invalid value: GRPC goes over uds only")
    if (tcp is None) == (uds is None):
        raise InvalidEgressConfiguration(f"{where}: Invalid value: exactly one of tcp and uds must be set")
    if uds is not None:
        path = _mapping(uds, f"{where}.uds", {"udsName"}).get("udsName")
        if not path or not isinstance(path, str) or path.startswith("unix:"):
            raise InvalidEgressConfiguration(f"{where}.uds.udsName: Invalid value: {path!r} is no path")
        return Transport(uds=path)
    return _tcp(tcp, f"{where}.tcp")


def _tcp(value: object, where: str) -> Transport:
    fields = _mapping(value, where, {"url", "tlsConfig"})
    url = urlsplit(str(fields.get("url") or ""))
    try:
        port = url.port
    except ValueError as error:
        raise InvalidEgressConfiguration(f"{where}.url: Invalid value: {error}") from error
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidEgressConfiguration(f"{where}.url: Invalid value: {fields.get('url')!r} is no http(s) URL")
    tls = fields.get("tlsConfig")
    if url.scheme == "http":
        if tls is not None:
            raise InvalidEgressConfiguration(f"{where}.tlsConfig: Invalid value: must be absent with http")
        return Transport(host=url.hostname, port=port or 80)
    return Transport(host=url.hostname, port=port or 443, tls=_tls(tls, f"{where}.tlsConfig"))


def _tls(value: object, where: str) -> TLSFiles:
    if value is None:
        raise InvalidEgressConfiguration(f"{where}: Required value: https needs a client certificate")
    fields = _mapping(value, where, {"caBundle", "clientCert", "clientKey", "tlsServerName"})
    for name in ("clientCert", "clientKey"):
        if not fields.get(name):
            raise InvalidEgressConfiguration(f"{where}.{name}: Required value: https needs a client certificate")
    for name in ("caBundle", "clientCert", "clientKey"):
        if fields.get(name) and not Path(fields[name]).is_file():
            raise InvalidEgressConfiguration(f"{where}.{name}: Invalid value: {fields[name]}: no such file")
    return TLSFiles(fields.get("caBundle"), fields["clientCert"], fields["clientKey"], fields.get("tlsServerName"))


def _mapping(value: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEgressConfiguration(f"{where or 'egress selector configuration'}: Invalid value: not a mapping")
    if unknown := sorted(str(key) for key in value if key not in known):
        raise InvalidEgressConfiguration(f'unknown field "{where + "." if where else ""}{unknown[0]}"')
    return value


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f'duplicate field "{repeated[0]}"', node.start_mark)
        return super().construct_mapping(node, deep)
