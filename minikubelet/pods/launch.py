"""What one start of one container is made of.

My job: pod, image, environment and mounts in, the runtime's `ContainerSpec` out. Pure. Neighbours: `containers`
gathers the parts and starts the result. Raises ConfigError for what upstream refuses at this point.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minikubelet import quantity
from minikubelet.pods import dns
from minikubelet.pods.environment import ConfigError, expanded_command
from minikubelet.pods.podref import ContainerKind, is_host_network, long_name, pod_ref
from minikubelet.runtime.interface import ContainerSpec, Mount, PodRef

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image brings. `rootfs` None: the host's files."""

    id: str
    rootfs: Path | None = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: int | None = None
    group: int | None = None
    visible_host_paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where the pod's files lie and what its containers share."""

    pod_ip: str
    node_name: str
    cluster_domain: str
    cluster_dns: tuple[str, ...]
    pod_dir: Path
    log_dir: Path


def log_directory(log_dir: Path, ref: PodRef) -> Path:
    return log_dir / f"{ref.namespace}_{ref.name}_{ref.uid}"


def log_file(log_dir: Path, ref: PodRef, container: str, attempt: int) -> Path:
    return log_directory(log_dir, ref) / container / f"{attempt}.log"


def container_spec(pod: JSON, container: JSON, attempt: int, image: ImageFacts, environment: dict[str, str],
                   mounts: tuple[Mount, ...], place: PodPlace, target_id: str | None = None) -> ContainerSpec:
    """Raises ConfigError."""
    ref, name, spec = pod_ref(pod), str(container["name"]), pod["spec"]
    security = _Security.of(pod, container, image)
    return ContainerSpec(
        pod=ref, name=name, attempt=attempt,
        argv=_argv(container, image, environment),
        env=tuple({**dict(image.env), "HOSTNAME": dns.host_name(pod, place.node_name), **environment}.items()),
        working_dir=container.get("workingDir") or image.working_dir,
        mounts=mounts,
        tty=bool(container.get("tty")), stdin=bool(container.get("stdin")), stdin_once=bool(container.get("stdinOnce")),
        rootfs=image.rootfs,
        hostname=dns.host_name(pod, place.node_name), pod_ip=place.pod_ip,
        extra_hosts=dns.extra_hosts(pod, place.node_name, place.pod_ip, place.cluster_domain),
        resolv_conf=dns.resolv_conf(pod, place.cluster_dns, place.cluster_domain),
        run_as_user=security.user, run_as_group=security.group, supplemental_groups=security.groups,
        log_path=log_file(place.log_dir, ref, name, attempt),
        termination_message_path=container.get("terminationMessagePath") or "/dev/termination-log",
        termination_message_file=place.pod_dir / "containers" / name / f"termination-{attempt}",
        cpu_limit_millis=_limit(container, "cpu"), memory_limit=_limit(container, "memory"),
        read_only_rootfs=security.read_only, privileged=security.privileged,
        allow_privilege_escalation=security.escalation,
        host_network=is_host_network(pod), host_pid=bool(spec.get("hostPID")),
        share_process_namespace=bool(spec.get("shareProcessNamespace")), target_container_id=target_id,
        visible_host_paths=image.visible_host_paths,
        annotations=dict(pod["metadata"].get("annotations") or {}),
    )


def _argv(container: JSON, image: ImageFacts, environment: dict[str, str]) -> tuple[str, ...]:
    """As an engine does: `command` replaces the image's entrypoint and its command, `args` the command only."""
    command, arguments = expanded_command(container, environment)
    if command:
        return (*command, *arguments)
    argv = (*image.entrypoint, *(arguments or image.command))
    if not argv:
        raise ConfigError("no command specified")
    return argv


def _limit(container: JSON, resource: str) -> int | None:
    limit = ((container.get("resources") or {}).get("limits") or {}).get(resource)
    if limit is None:
        return None
    return quantity.milli(limit) if resource == "cpu" else quantity.whole(limit)


@dataclass(frozen=True, slots=True)
class _Security:
    """The pod's and the container's security context, the container's winning."""

    user: int | None
    group: int | None
    groups: tuple[int, ...]
    read_only: bool
    privileged: bool
    escalation: bool

    @classmethod
    def of(cls, pod: JSON, container: JSON, image: ImageFacts) -> "_Security":
        shared, own = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}
        both = {**shared, **{key: value for key, value in own.items() if value is not None}}
        user = both.get("runAsUser", image.user)
        if both.get("runAsNonRoot") and user == 0:
            raise ConfigError("container's runAsUser breaks non-root policy "
                              f'(pod: "{long_name(pod_ref(pod))}", container: {container["name"]})')
        groups = [*(shared.get("supplementalGroups") or ()), *([shared["fsGroup"]] if shared.get("fsGroup") else ())]
        return cls(user, both.get("runAsGroup", image.group), tuple(groups), bool(own.get("readOnlyRootFilesystem")),
                   bool(own.get("privileged")), own.get("allowPrivilegeEscalation", True) is not False)


def is_restarted(kind: ContainerKind, container: JSON, pod_policy: str, exit_code: int) -> bool:
    """Whether a container that ended so is started again: its own rules, its own policy, the pod's policy."""
    if kind is ContainerKind.EPHEMERAL:
        return False
    if kind is ContainerKind.SIDECAR:
        return True
    for rule in container.get("restartPolicyRules") or ():
        if rule.get("action") == "Restart" and _rule_matches(rule.get("exitCodes") or {}, exit_code):
            return True
    policy = container.get("restartPolicy") or pod_policy
    if kind is ContainerKind.INIT and policy == "Always":
        policy = "OnFailure"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _rule_matches(exit_codes: JSON, exit_code: int) -> bool:
    listed = exit_code in (exit_codes.get("values") or ())
    return listed if exit_codes.get("operator") == "In" else not listed
