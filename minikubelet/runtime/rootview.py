"""The root a container sees: the host's files read-only or an image's own, with every volume at its path.

My job: build it under /tmp of a private mount namespace, then pivot into it. I own nothing that outlives the
namespace. `init` calls me in the container's first process; the paths come resolved from `process`.

Three rules make any mount path possible without writing to the host:
1. The root of the host view is a tmpfs holding one read-only bind mount per top-level entry, so `/data` can be made.
2. Where a mount point is missing inside a read-only tree (`/etc/config`), its parent is mirrored: a tmpfs over it, with
   each old entry bound back. Links are resolved inside the new root, never outside (`/var/run` is `/run` in there).
3. Sources are opened before anything is mounted, without following links, and bound by descriptor: neither a mount
   nor a container that shares the volume can put something else in their place (CVE-2017-1002101).
"""

import contextlib
import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import Any

from minikubelet.runtime import kernel
from minikubelet.runtime.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

STAGE = "/tmp"
ROOT = STAGE + "/root"
OWN_IN_HOST_VIEW = frozenset({"proc", "sys", "dev", "tmp", "run", "lost+found"})
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
# Real root may write these whatever its capabilities; the lists are those of the OCI default spec.
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
MIRROR_ERRORS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EOVERFLOW})
MAX_LINKS = 40
SCRATCH_LIMIT = "size=256m"


class ViewError(Exception):
    """A step of building the root failed; `what` says which, in words for the user."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what)
        self.what, self.number = what, number


@dataclass(frozen=True, slots=True)
class _Source:
    """One thing to appear in the container, held by descriptor."""

    descriptor: int
    target: str
    read_only: bool
    is_directory: bool

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.descriptor}"


def build(spec: dict[str, Any]) -> None:
    """Make the root that `spec` asks for the root of this process. Raises ViewError."""
    sources = [_open(host, target, read_only) for host, target, read_only in spec["mounts"]]
    visible = [_open(os.path.realpath(path), path, True) for path in spec["visible"] if os.path.exists(path)]
    image = _open_image(spec)
    with _step("prepare mounts"):
        mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
        os.mkdir(ROOT, 0o755)
    with _step("root filesystem"):
        if image:
            _image_root(image, spec)
        else:
            _host_root(spec["hidden"])
        _system_directories(spec)
    for source in visible:
        if not os.path.exists(ROOT + source.target):  # only what is hidden has to be brought back
            _attach(source)
    for source in sorted(sources, key=lambda source: source.target.count("/")):
        _attach(source)
    if spec["cwd"]:
        with contextlib.suppress(OSError):  # chdir reports it better
            _place(spec["cwd"], directory=True)
    with _step("enter root"):
        if spec["read_only_root"]:
            _seal()
        kernel.pivot_into(ROOT)
    for source in (*visible, *sources):
        os.close(source.descriptor)


def bind_terminal(slave: str) -> None:
    """`slave` (a path of our own devpts) as /dev/console, as every container engine shows it."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mount(slave, "/dev/console", flags=kernel.MS_BIND)


@contextlib.contextmanager
def _step(what: str) -> Any:
    try:
        yield
    except OSError as error:
        detail = f" ({str(error.filename).replace(ROOT, '')})" if error.filename and error.filename not in what else ""
        raise ViewError(what + detail, error.errno or 0) from error


def _open(host: str, target: str, read_only: bool) -> _Source:
    with _step(f"mount {host} at {target}"):
        descriptor = kernel.open_path(host)
        return _Source(descriptor, target, read_only, stat.S_ISDIR(os.fstat(descriptor).st_mode))


def _open_image(spec: dict[str, Any]) -> dict[str, int]:
    if not spec["rootfs"]:
        return {}
    names = {"lower": spec["rootfs"], "upper": spec["scratch"] + "/upper", "work": spec["scratch"] + "/work"}
    with _step(f"image root {spec['rootfs']}"):
        return {name: os.open(path, os.O_PATH | os.O_CLOEXEC) for name, path in names.items()}


def _image_root(image: dict[str, int], spec: dict[str, Any]) -> None:
    lower, upper, work = (f"/proc/self/fd/{image[name]}" for name in ("lower", "upper", "work"))
    if spec["overlay"]:
        options = f"lowerdir={lower},upperdir={upper},workdir={work}" + (",userxattr" if spec["user_namespace"] else "")
        mount("overlay", ROOT, "overlay", 0, options)
    else:
        kernel.bind(lower, ROOT, read_only=True)
        _mirror(ROOT)
        for name in ("tmp", "run"):
            _tmpfs(_place("/" + name, directory=True), "mode=1777")
    for descriptor in image.values():
        os.close(descriptor)


def _host_root(hidden: list[str]) -> None:
    mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,{SCRATCH_LIMIT}")
    for name in sorted(set(os.listdir("/")) - OWN_IN_HOST_VIEW):
        with contextlib.suppress(OSError):  # what we may not see, the container does not see
            _replicate("/" + name, f"{ROOT}/{name}", read_only=True)
    for name in ("tmp", "run"):
        os.mkdir(f"{ROOT}/{name}")
        _tmpfs(f"{ROOT}/{name}", "mode=1777" if name == "tmp" else "mode=0755")
    os.mkdir(f"{ROOT}/run/lock", 0o755)
    for path in ("/var/tmp", *hidden):
        _hide(ROOT + path, "mode=1777" if path == "/var/tmp" else "mode=0755")


def _hide(target: str, mode: str) -> None:
    """An empty directory of the container's own over `target`; a single file becomes /dev/null."""
    if os.path.isdir(target):
        _tmpfs(target, mode)
    elif os.path.exists(target):
        kernel.bind("/dev/null", target, read_only=True)


def _tmpfs(target: str, mode: str) -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"{mode},{SCRATCH_LIMIT}")


def _system_directories(spec: dict[str, Any]) -> None:
    proc = _place("/proc", directory=True)
    if spec["own_proc"]:
        mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    else:
        kernel.bind("/proc", proc, read_only=False)
    if spec["mask_proc"]:
        _mask(proc)
    kernel.bind("/sys", _place("/sys", directory=True), read_only=True)
    _devices(_place("/dev", directory=True), spec["terminal_group"])


def _mask(proc: str) -> None:
    for name in PROC_READ_ONLY:
        if os.path.exists(f"{proc}/{name}"):
            kernel.bind(f"{proc}/{name}", f"{proc}/{name}", read_only=True)
    for name in PROC_MASKED:
        path = f"{proc}/{name}"
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", kernel.MS_RDONLY, "size=0k")
        elif os.path.exists(path):
            kernel.bind("/dev/null", path, read_only=True)


def _devices(dev: str, terminal_group: str) -> None:
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=0755,size=1m")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            _replicate(f"/dev/{name}", f"{dev}/{name}", read_only=False)
    for name, mode in (("pts", 0o755), ("shm", 0o1777)):
        os.mkdir(f"{dev}/{name}", mode)
    options = f"newinstance,ptmxmode=0666,mode=0620{terminal_group}"
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    for name, target in DEVICE_LINKS:
        os.symlink("/proc/self/fd" + target, f"{dev}/{name}")


def _attach(source: _Source) -> None:
    with _step(f"mount at {source.target}"):
        kernel.bind(source.path, _place(source.target, directory=source.is_directory), read_only=source.read_only)


def _place(path: str, *, directory: bool) -> str:
    """Where `path` of the container is under ROOT, made if missing. Links never lead out of ROOT."""
    current, parts, links = ROOT, deque(path.split("/")), 0
    while parts:
        part = parts.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            current = os.path.dirname(current) if current != ROOT else ROOT
            continue
        following, is_last = f"{current}/{part}", not any(parts)
        try:
            mode = os.lstat(following).st_mode
        except FileNotFoundError:
            _make(following, directory=directory or not is_last)
            mode = 0
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(following)
            current = ROOT if target.startswith("/") else current
            parts.extendleft(reversed(target.split("/")))
            continue
        current = following
    return current


def _make(path: str, *, directory: bool) -> None:
    try:
        _create(path, directory=directory)
    except OSError as error:
        if error.errno not in MIRROR_ERRORS:
            raise
        _mirror(os.path.dirname(path))
        _create(path, directory=directory)


def _create(path: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _mirror(directory: str) -> None:
    """A tmpfs over `directory` that shows what was there, entry by entry, so that more can be added."""
    covered = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(covered).st_mode) | 0o700
        names = os.listdir(covered)
        mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:04o},{SCRATCH_LIMIT}")
        for name in names:
            with contextlib.suppress(OSError):
                _replicate(f"/proc/self/fd/{covered}/{name}", f"{directory}/{name}", read_only=False)
    finally:
        os.close(covered)


def _replicate(source: str, target: str, *, read_only: bool) -> None:
    """`source` at `target`, which does not exist yet. A bind keeps the read-only flag of its source."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
        return
    _create(target, directory=stat.S_ISDIR(mode))
    kernel.bind(source, target, read_only=read_only)


def _seal() -> None:
    """Only the root's own file system: volumes, /dev and /tmp under it keep what they are."""
    flags = os.statvfs(ROOT).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", ROOT, flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | flags | kernel.MS_RELATIME)
