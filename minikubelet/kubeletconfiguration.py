"""The KubeletConfiguration file, read strictly.

My job: YAML in, one frozen value out, or one error that names the field. I own no state. Neighbours: `config` lays
the flags over me. Rule: a field upstream does not know is an error; a field upstream knows and we do not honour is
named once by `ignored`. Where upstream's bare flags default to open doors (anonymous, AlwaysAllow, port 10255), we
keep the file's secure defaults in both cases.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from minikubelet import quantity

API_VERSION = "kubelet.config.k8s.io/v1beta1"


class InvalidConfiguration(ValueError):
    """The configuration cannot be used; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Authentication:
    client_ca_file: str = ""
    webhook_enabled: bool = True
    webhook_cache_ttl: float = 120.0
    anonymous_enabled: bool = False


@dataclass(frozen=True, slots=True)
class Authorization:
    mode: str = "Webhook"
    cache_authorized_ttl: float = 300.0
    cache_unauthorized_ttl: float = 30.0


@dataclass(frozen=True, slots=True)
class KubeletConfiguration:
    """What the file may say, with the defaults of v1beta1. Durations in seconds, sizes in bytes."""

    address: str = "0.0.0.0"
    port: int = 10250
    read_only_port: int = 0
    healthz_port: int = 10248
    healthz_bind_address: str = "127.0.0.1"
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    rotate_certificates: bool = False
    server_tls_bootstrap: bool = False
    authentication: Authentication = Authentication()
    authorization: Authorization = Authorization()
    static_pod_path: str = ""
    pod_logs_dir: str = ""
    pod_cidr: str = ""
    sync_frequency: float = 60.0
    file_check_frequency: float = 20.0
    node_status_update_frequency: float = 10.0
    node_status_report_frequency: float = 300.0
    node_lease_duration_seconds: int = 40
    container_log_max_size: int = 10 * 2**20
    container_log_max_files: int = 5
    container_log_monitor_interval: float = 10.0
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    max_pods: int = 110
    register_node: bool = True
    register_with_taints: tuple[Mapping[str, str], ...] = ()
    provider_id: str = ""
    enable_server: bool = True
    enable_debugging_handlers: bool = True
    enable_system_log_handler: bool = True
    max_container_restart_period: float = 300.0
    system_reserved: Mapping[str, str] = field(default_factory=dict)
    kube_reserved: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(value: Any) -> float:
    """Go's duration text (`1m30s`) in seconds."""
    text = str(value)
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidConfiguration(f"invalid duration {text!r}")
    return sum(float(number) * _UNIT[unit] for number, unit in parts)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidConfiguration(f"must be a string, got {value!r}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfiguration(f"must be true or false, got {value!r}")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidConfiguration(f"must be an integer, got {value!r}")
    return value


def _port(value: Any) -> int:
    number = _integer(value)
    if not 0 <= number <= 65535:
        raise InvalidConfiguration(f"must be a port (0-65535), got {number}")
    return number


def _size(value: Any) -> int:
    try:
        return quantity.whole(value)
    except quantity.InvalidQuantity as error:
        raise InvalidConfiguration(str(error)) from None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidConfiguration(f"must be a list, got {value!r}")
    return tuple(_text(item) for item in value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidConfiguration(f"must be a mapping, got {value!r}")
    return value


def _taints(value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list):
        raise InvalidConfiguration(f"must be a list of taints, got {value!r}")
    return tuple({str(key): str(item) for key, item in _mapping(taint).items()} for taint in value)


def _reserved(value: Any) -> dict[str, str]:
    reserved = {str(key): str(item) for key, item in _mapping(value).items()}
    for amount in reserved.values():
        _size(amount)
    return reserved


Reader = Callable[[Any], Any]

_FIELDS: dict[str, tuple[str, Reader]] = {
    "address": ("address", _text),
    "port": ("port", _port),
    "readOnlyPort": ("read_only_port", _port),
    "healthzPort": ("healthz_port", _port),
    "healthzBindAddress": ("healthz_bind_address", _text),
    "tlsCertFile": ("tls_cert_file", _text),
    "tlsPrivateKeyFile": ("tls_private_key_file", _text),
    "rotateCertificates": ("rotate_certificates", _boolean),
    "serverTLSBootstrap": ("server_tls_bootstrap", _boolean),
    "staticPodPath": ("static_pod_path", _text),
    "podLogsDir": ("pod_logs_dir", _text),
    "podCIDR": ("pod_cidr", _text),
    "syncFrequency": ("sync_frequency", duration),
    "fileCheckFrequency": ("file_check_frequency", duration),
    "nodeStatusUpdateFrequency": ("node_status_update_frequency", duration),
    "nodeStatusReportFrequency": ("node_status_report_frequency", duration),
    "nodeLeaseDurationSeconds": ("node_lease_duration_seconds", _integer),
    "containerLogMaxSize": ("container_log_max_size", _size),
    "containerLogMaxFiles": ("container_log_max_files", _integer),
    "containerLogMonitorInterval": ("container_log_monitor_interval", duration),
    "clusterDomain": ("cluster_domain", _text),
    "clusterDNS": ("cluster_dns", _texts),
    "maxPods": ("max_pods", _integer),
    "registerNode": ("register_node", _boolean),
    "registerWithTaints": ("register_with_taints", _taints),
    "providerID": ("provider_id", _text),
    "enableServer": ("enable_server", _boolean),
    "enableDebuggingHandlers": ("enable_debugging_handlers", _boolean),
    "enableSystemLogHandler": ("enable_system_log_handler", _boolean),
    "systemReserved": ("system_reserved", _reserved),
    "kubeReserved": ("kube_reserved", _reserved),
}

_AUTHENTICATION: dict[str, dict[str, tuple[str, Reader]]] = {
    "x509": {"clientCAFile": ("client_ca_file", _text)},
    "webhook": {"enabled": ("webhook_enabled", _boolean), "cacheTTL": ("webhook_cache_ttl", duration)},
    "anonymous": {"enabled": ("anonymous_enabled", _boolean)},
}
_AUTHORIZATION_WEBHOOK: dict[str, tuple[str, Reader]] = {
    "cacheAuthorizedTTL": ("cache_authorized_ttl", duration),
    "cacheUnauthorizedTTL": ("cache_unauthorized_ttl", duration),
}
_MODES = ("AlwaysAllow", "Webhook")

# Fields of upstream's type which mean nothing without a container engine, or which we do not honour yet.
_UNUSED_TEXT = """
httpCheckFrequency staticPodURL staticPodURLHeader tlsCipherSuites tlsMinVersion tlsCurvePreferences registryPullQPS
registryBurst imagePullCredentialsVerificationPolicy preloadedImagesVerificationAllowlist eventRecordQPS eventBurst
enableContentionProfiling oomScoreAdj streamingConnectionIdleTimeout imageMinimumGCAge imageMaximumGCAge
imageGCHighThresholdPercent imageGCLowThresholdPercent volumeStatsAggPeriod kubeletCgroups systemCgroups cgroupRoot
cgroupsPerQOS cgroupDriver cpuManagerPolicy singleProcessOOMKill cpuManagerPolicyOptions cpuManagerReconcilePeriod
memoryManagerPolicy topologyManagerPolicy topologyManagerScope topologyManagerPolicyOptions qosReserved
runtimeRequestTimeout hairpinMode podPidsLimit resolvConf runOnce cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages
maxOpenFiles contentType kubeAPIQPS kubeAPIBurst serializeImagePulls maxParallelImagePulls evictionHard evictionSoft
evictionSoftGracePeriod evictionPressureTransitionPeriod evictionMaxPodGracePeriod evictionMinimumReclaim
mergeDefaultEvictionSettings podsPerCore enableControllerAttachDetach protectKernelDefaults makeIPTablesUtilChains
iptablesMasqueradeBit iptablesDropBit featureGates failSwapOn memorySwap containerLogMaxWorkers
configMapAndSecretChangeDetectionStrategy reservedSystemCPUs showHiddenMetricsForVersion systemReservedCgroup
kubeReservedCgroup enforceNodeAllocatable allowedUnsafeSysctls volumePluginDir kernelMemcgNotification logging
enableSystemLogQuery shutdownGracePeriod shutdownGracePeriodCriticalPods shutdownGracePeriodByPodPriority reservedMemory
enableProfilingHandler enableDebugFlagsHandler seccompDefault memoryThrottlingFactor tracing
localStorageCapacityIsolation containerRuntimeEndpoint imageServiceEndpoint failCgroupV1 userNamespaces
"""
_UNUSED = frozenset(_UNUSED_TEXT.split())


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, as upstream's strict decoding does."""


def _no_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise InvalidConfiguration(f'strict decoding error: key "{key}" already set in map')
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def load(path: Path) -> KubeletConfiguration:
    """The file's configuration. Raises InvalidConfiguration, naming the file."""
    try:
        document = yaml.load(path.read_bytes(), Loader=_StrictLoader)
        return parse(document)
    except OSError as error:
        raise InvalidConfiguration(f"kubelet config file {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InvalidConfiguration(f"kubelet config file {path}: {' '.join(str(error).split())}") from None
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"kubelet config file {path}: {error}") from None


def parse(document: Any) -> KubeletConfiguration:
    """One decoded document. Raises InvalidConfiguration."""
    fields = dict(_mapping(document))
    if (fields.pop("apiVersion", None), fields.pop("kind", None)) != (API_VERSION, "KubeletConfiguration"):
        raise InvalidConfiguration(f"must be apiVersion {API_VERSION}, kind KubeletConfiguration")
    values: dict[str, Any] = {}
    for name, reader in (("authentication", _authentication), ("authorization", _authorization)):
        if (section := fields.pop(name, None)) is not None:
            values[name] = reader(_mapping(section))
    if (crash_loop := fields.pop("crashLoopBackOff", None)) is not None:
        values["max_container_restart_period"] = _crash_loop(_mapping(crash_loop))
    ignored = tuple(sorted(name for name in fields if name in _UNUSED))
    known = {name: value for name, value in fields.items() if name not in _UNUSED}
    values |= _read(known, _FIELDS, "")
    return _checked(KubeletConfiguration(**values, ignored=ignored))


def _read(section: Mapping[str, Any], table: Mapping[str, tuple[str, Reader]], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in section.items():
        if name not in table:
            raise InvalidConfiguration(f'strict decoding error: unknown field "{prefix}{name}"')
        if value is None:
            continue
        attribute, reader = table[name]
        try:
            values[attribute] = reader(value)
        except InvalidConfiguration as error:
            raise InvalidConfiguration(f"{prefix}{name}: {error}") from None
    return values


def _authentication(section: Mapping[str, Any]) -> Authentication:
    values: dict[str, Any] = {}
    for name, inner in section.items():
        if name not in _AUTHENTICATION:
            raise InvalidConfiguration(f'strict decoding error: unknown field "authentication.{name}"')
        values |= _read(_mapping(inner), _AUTHENTICATION[name], f"authentication.{name}.")
    return Authentication(**values)


def _authorization(section: Mapping[str, Any]) -> Authorization:
    fields = dict(section)
    values = _read(_mapping(fields.pop("webhook", None) or {}), _AUTHORIZATION_WEBHOOK, "authorization.webhook.")
    values |= _read(fields, {"mode": ("mode", _text)}, "authorization.")
    return Authorization(**values)


def _crash_loop(section: Mapping[str, Any]) -> float:
    values = _read(section, {"maxContainerRestartPeriod": ("period", duration)}, "crashLoopBackOff.")
    return float(values.get("period", KubeletConfiguration().max_container_restart_period))


def _checked(configuration: KubeletConfiguration) -> KubeletConfiguration:
    """Rules between fields, in upstream's spirit: what cannot work is refused at start."""
    if configuration.authorization.mode not in _MODES:
        raise InvalidConfiguration(f"authorization.mode: must be one of {', '.join(_MODES)}, "
                                   f"got {configuration.authorization.mode!r}")
    if configuration.container_log_max_files < 2:
        raise InvalidConfiguration("containerLogMaxFiles: must be greater than 1")
    if configuration.node_lease_duration_seconds <= 0:
        raise InvalidConfiguration("nodeLeaseDurationSeconds: must be greater than 0")
    if not 1.0 <= configuration.max_container_restart_period <= 300.0:
        raise InvalidConfiguration("crashLoopBackOff.maxContainerRestartPeriod: must be between 1s and 300s")
    return configuration


def with_flags(configuration: KubeletConfiguration, **flags: Any) -> KubeletConfiguration:
    """The file's values with those flags laid over it that were given (not None)."""
    given = {name: value for name, value in flags.items() if value is not None}
    return _checked(replace(configuration, **given))


def as_json(configuration: KubeletConfiguration) -> dict[str, Any]:
    """The effective configuration under the file's names, for /configz."""
    body: dict[str, Any] = {name: _plain(name, getattr(configuration, attribute))
                            for name, (attribute, _) in _FIELDS.items()}
    authentication, authorization = configuration.authentication, configuration.authorization
    body["authentication"] = {
        "x509": {"clientCAFile": authentication.client_ca_file},
        "webhook": {"enabled": authentication.webhook_enabled, "cacheTTL": _go(authentication.webhook_cache_ttl)},
        "anonymous": {"enabled": authentication.anonymous_enabled}}
    body["authorization"] = {
        "mode": authorization.mode,
        "webhook": {"cacheAuthorizedTTL": _go(authorization.cache_authorized_ttl),
                    "cacheUnauthorizedTTL": _go(authorization.cache_unauthorized_ttl)}}
    body["crashLoopBackOff"] = {"maxContainerRestartPeriod": _go(configuration.max_container_restart_period)}
    return body


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return _go(value)
    if name == "containerLogMaxSize":
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _go(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
