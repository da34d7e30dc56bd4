"""The Linux calls Python 3.11 has no words for: namespaces, mounts, capabilities, prctl.

My job: one thin function per call, arguments in Python types, failure as OSError with the path it was about. I own
nothing. `launcher`, `init` and `rootview` use me inside freshly forked processes, where nothing else may be imported.
"""

import ctypes
import errno
import fcntl
import os
import struct
from enum import IntFlag

libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock over the call: clone3 returns twice, and the child must find the lock held by itself.
_libc_locked = ctypes.PyDLL(None, use_errno=True)

# The same numbers on every architecture (unified since Linux 5.0).
SYS_CLONE3, SYS_OPENAT2, SYS_MOUNT_SETATTR = 435, 437, 442


class Namespace(IntFlag):
    """CLONE_NEW* bits."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000


CLONE_PARENT, CLONE_PIDFD = 0x00008000, 0x00001000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 32, 1024, 2048, 4096, 16384
MS_SLAVE, MS_RELATIME = 1 << 19, 1 << 21
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
RESOLVE_NO_SYMLINKS = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV = 1, 4

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 24, 38, 15, 36
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    _check(libc.mount(*arguments), f"mount {kind or source} on {target}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """The whole tree at `source` with the mounts in it: a user namespace may not take a tree apart."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        make_read_only(target)


def make_read_only(target: str) -> None:
    attributes = struct.pack("=QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = target.encode()
    if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE, attributes, len(attributes)) < 0:
        _remount_read_only(target)  # before Linux 5.12


def _remount_read_only(target: str) -> None:
    real = os.path.realpath(target)
    with open("/proc/self/mountinfo") as mounts:
        points = [_unescape(line.split()[4]) for line in mounts]
    for point in points:
        if point == real or point.startswith(real.rstrip("/") + "/"):
            # Flags that came with the mount are locked in a user namespace and must be given again; statvfs speaks
            # the same bits as mount(2) for these three, atime bits differ.
            kept = os.statvfs(point).f_flag
            flags = kept & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
            flags |= (MS_NOATIME if kept & 1024 else 0) | (MS_NODIRATIME if kept & 2048 else 0)
            flags |= MS_RELATIME if kept & 4096 else 0
            mount("none", point, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | flags)


def _unescape(path: str) -> str:
    return path.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")


def pivot_into(root: str) -> None:
    """Make `root` (a mount point) the root of this mount namespace and let go of the old one."""
    os.chdir(root)
    _check(libc.pivot_root(b".", b"."), f"pivot_root {root}")
    _check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def open_path(path: str) -> int:
    """An O_PATH descriptor of `path`, of which no component may be a link. Raises OSError (ELOOP)."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    descriptor = libc.syscall(SYS_OPENAT2, AT_FDCWD, path.encode(), how, len(how))
    if descriptor < 0 and ctypes.get_errno() == errno.ENOSYS:  # before Linux 5.6
        return os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    return _check(descriptor, f"open {path}")


def unshare(flags: int) -> None:
    _check(libc.unshare(ctypes.c_int(flags)), f"unshare {Namespace(flags)!s}")


def join(pidfd: int, flags: int) -> None:
    """Enter the namespaces of the process behind `pidfd`, all at once: one check against our present privileges."""
    _check(libc.setns(pidfd, ctypes.c_int(flags)), f"setns {Namespace(flags)!s}")


def fork_sibling() -> tuple[int, int]:
    """Fork a child of our parent. Returns (pid, pidfd) here and (0, -1) there.

    A child of the parent, because its death signal must be tied to the launcher and not to us, who leave at once.
    """
    pidfd = ctypes.c_int(-1)
    arguments = struct.pack("=11Q", CLONE_PARENT | CLONE_PIDFD, ctypes.addressof(pidfd), *([0] * 9))
    pid = _check(_libc_locked.syscall(SYS_CLONE3, arguments, len(arguments)), "clone3")
    return (pid, pidfd.value) if pid else (0, -1)


def prctl(option: int, argument: int = 0, second: int = 0) -> None:
    values = [ctypes.c_ulong(value) for value in (argument, second, 0, 0)]
    _check(libc.prctl(option, *values), f"prctl {option}")


def set_name(name: str) -> None:
    libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def set_title(title: str) -> None:
    """What `ps` shows: over the arguments we were started with, which say nothing to a container's user."""
    try:
        with open("/proc/self/stat", "rb") as file:
            start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
    except (OSError, ValueError):
        return
    if start and end > start:
        ctypes.memmove(start, title.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def set_hostname(name: str) -> None:
    data = name.encode()[:64]
    _check(libc.sethostname(data, len(data)), "sethostname")


def limit_capabilities(keep: frozenset[int]) -> None:
    """Nothing but `keep`, now and after every exec."""
    for capability in range(64):
        if capability not in keep and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # EINVAL: past the last one this kernel knows; EPERM: none are ours to drop
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def set_capabilities(capabilities: frozenset[int]) -> None:
    mask = sum(1 << capability for capability in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")


def unlock_terminal(master: int) -> None:
    fcntl.ioctl(master, 0x40045431, struct.pack("=i", 0))  # TIOCSPTLCK


def terminal_number(master: int) -> int:
    (number,) = struct.unpack("=I", fcntl.ioctl(master, 0x80045430, b"\0\0\0\0"))  # TIOCGPTN
    return int(number)


def take_terminal(descriptor: int) -> None:
    """The terminal of the session we lead, and we in its foreground: what job control needs."""
    fcntl.ioctl(descriptor, 0x540E, 0)  # TIOCSCTTY


def duplicate_above(descriptor: int, lowest: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
