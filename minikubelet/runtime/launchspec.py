"""From a ContainerSpec to what the launcher is told: a pure translation.

My job: namespaces, users, capabilities and paths of one start, by what this machine allows. I own nothing; `process`
calls me, `init` and `rootview` read the result. No file is touched here, so every decision can be tested as a value.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minikubelet.runtime.interface import ContainerSpec
from minikubelet.runtime.kernel import Namespace

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What containerd leaves a container by default, without MKNOD and NET_RAW: devices and the network are the host's here.
# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE SETFCAP
CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31)
ALL_CAPABILITIES = tuple(range(41))
NAMESPACES = Namespace.MOUNT | Namespace.UTS | Namespace.IPC


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine allows, as far as it changes a launch."""

    mounts: bool
    own_pids: bool
    user_namespace: bool
    is_root: bool
    overlay: bool


PLAIN_USER = Isolation(mounts=False, own_pids=False, user_namespace=False, is_root=False, overlay=False)


def container(
    spec: ContainerSpec, isolation: Isolation, scratch: Path, hidden: tuple[Path, ...], *, joins_pids: bool = False
) -> dict[str, Any]:
    """`joins_pids`: the process to join comes as the last descriptor, and its PID namespace is used."""
    own_pids = isolation.own_pids and not (spec.host_pid or joins_pids)
    user = spec.run_as_user or 0
    group = spec.run_as_group if spec.run_as_group is not None else 0
    unshare = Namespace(0)
    if isolation.mounts:
        unshare = NAMESPACES | (Namespace.PID if own_pids else Namespace(0))
        unshare |= Namespace.USER if isolation.user_namespace and not joins_pids else Namespace(0)
    join = Namespace(0)
    if joins_pids:
        join = Namespace.PID | (Namespace.USER if isolation.user_namespace else Namespace(0))
    return {
        **_process(spec, isolation, spec.argv, dict_of(spec), spec.tty),
        **_view(spec, isolation, scratch, hidden),
        "kind": "container",
        "unshare_flags": int(unshare),
        "join_flags": int(join),
        "map_user": user,
        "map_group": group,
        "nested_user": bool(joins_pids and isolation.user_namespace and (user or group)),
        "hostname": spec.hostname if isolation.mounts and not spec.host_network else "",
        "own_proc": own_pids or joins_pids,
        "reap_orphans": not own_pids,
        "console": isolation.mounts,
        "lenient_cwd": not isolation.mounts,
    }


def command(
    spec: ContainerSpec, launch: dict[str, Any], isolation: Isolation, argv: tuple[str, ...], *, tty: bool
) -> dict[str, Any]:
    """`argv` beside the container that was launched with `launch`."""
    join = launch["unshare_flags"] | launch["join_flags"]
    return {
        **_process(spec, isolation, argv, dict_of(spec), tty),
        "kind": "exec",
        "join_flags": join,
        "reap_orphans": False,
        "console": False,
        "lenient_cwd": launch["lenient_cwd"],
        "scratch": launch["scratch"],
    }


def pause(isolation: Isolation) -> dict[str, Any]:
    """The holder of a pod's shared PID namespace."""
    flags = Namespace.PID | (Namespace.USER if isolation.user_namespace else Namespace(0))
    return {"kind": "pause", "unshare_flags": int(flags), "join_flags": 0, "map_user": 0, "map_group": 0}


def dict_of(spec: ContainerSpec) -> dict[str, str]:
    """The environment; what every engine adds, the spec may override."""
    home = "/root" if not spec.run_as_user else "/"
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname, "HOME": home}
    return defaults | ({"TERM": "xterm"} if spec.tty else {}) | dict(spec.env)


def _process(
    spec: ContainerSpec, isolation: Isolation, argv: tuple[str, ...], env: dict[str, str], terminal: bool
) -> dict[str, Any]:
    real_users = isolation.is_root and not isolation.user_namespace
    user, group = spec.run_as_user or 0, spec.run_as_group if spec.run_as_group is not None else 0
    capabilities = ALL_CAPABILITIES if spec.privileged else CAPABILITIES
    return {
        "argv": list(argv),
        "env": list((env | ({"TERM": "xterm"} if terminal and "TERM" not in env else {})).items()),
        "cwd": spec.working_dir or ("/" if isolation.mounts else ""),
        "terminal": terminal,
        "owner": user if real_users and user else None,
        "set_user": [user, group, list(spec.supplemental_groups)] if real_users else None,
        "capabilities": list(capabilities),
        "limit_capabilities": isolation.is_root or isolation.user_namespace,
        "is_root": user == 0,
        # Outside a user namespace of our own, set-uid programs of the host would be a way to become another user.
        "no_new_privileges": not real_users or not spec.allow_privilege_escalation,
    }


def _view(spec: ContainerSpec, isolation: Isolation, scratch: Path, hidden: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "view": isolation.mounts,
        "rootfs": str(spec.rootfs) if spec.rootfs else "",
        "scratch": str(scratch),
        "overlay": isolation.overlay,
        "user_namespace": isolation.user_namespace,
        "hidden": [str(path) for path in hidden],
        "visible": [str(path) for path in spec.visible_host_paths],
        "mounts": [(str(mount.host_path), mount.container_path, mount.read_only) for mount in spec.mounts],
        "mask_proc": isolation.is_root and not isolation.user_namespace and not spec.privileged,
        "terminal_group": ",gid=5" if isolation.is_root and not isolation.user_namespace else "",
        "read_only_root": spec.read_only_rootfs,
    }
