"""`miniplane doctor`: what this machine allows, and what follows from it.

My job: try things out (bind a port, make a namespace, ask a program its version) and say the consequence of each in one
line. Changes nothing. A missing nicety is a remark; only what `up` cannot do without makes the exit code 1.
"""

import enum
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from miniplane.addresses import HTTPS_PORT, KUBERNETES_PORT

TRY_SECONDS: Final = 5.0
OLDEST_PYTHON: Final = (3, 11)


class Verdict(enum.Enum):
    """How good the news is."""

    GOOD = "ok"
    REMARK = "note"
    BAD = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    subject: str
    verdict: Verdict
    found: str
    follows: str = ""

    def as_json(self) -> dict[str, str]:
        return {"subject": self.subject, "verdict": self.verdict.value, "found": self.found, "follows": self.follows}


def doctor(as_json: bool) -> int:
    findings = examine()
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.verdict.value:<8}{finding.subject:<18}{finding.found}")
            if finding.follows:
                print(f"{'':<26}→ {finding.follows}")
    return 1 if any(finding.verdict is Verdict.BAD for finding in findings) else 0


def examine() -> list[Finding]:
    return [finding for check in _CHECKS for finding in check()]


def _python() -> list[Finding]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= OLDEST_PYTHON:
        return [Finding("python", Verdict.GOOD, found)]
    return [Finding("python", Verdict.BAD, found, "miniplane needs Python 3.11 or later")]


def _loopback() -> list[Finding]:
    if _can_listen("127.0.10.1", 0):
        return [Finding("loopback", Verdict.GOOD, "all of 127.0.0.0/8 answers")]
    follows = "nodes, pods and services cannot have addresses of their own; Linux allows it"
    return [Finding("loopback", Verdict.BAD, "127.0.10.1 cannot be listened on", follows)]


def _low_ports() -> list[Finding]:
    if _can_listen("127.0.0.1", HTTPS_PORT):
        return [Finding("ports below 1024", Verdict.GOOD, f"the API server can listen on {HTTPS_PORT}")]
    start = _read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    follows = f"the API server listens on {KUBERNETES_PORT} instead; services on such ports are refused"
    return [Finding("ports below 1024", Verdict.REMARK, f"refused or taken (free from {start})", follows)]


def _user_namespaces() -> list[Finding]:
    answer = _run(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true"])
    if answer is not None and answer.code == 0:
        return [Finding("user namespaces", Verdict.GOOD, "allowed: pods get their own view of files and processes")]
    why = answer.text if answer else "util-linux' unshare is not installed"
    follows = "pods run as plain processes that see the host's files as you do"
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        follows += "; AppArmor forbids it here (sysctl kernel.apparmor_restrict_unprivileged_userns)"
    return [Finding("user namespaces", Verdict.REMARK, f"refused: {why}", follows)]


def _bubblewrap() -> list[Finding]:
    answer = _run(["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "true"])
    if answer is None:
        return [Finding("bubblewrap", Verdict.REMARK, "not installed", "the kubelet makes its namespaces by itself")]
    if answer.code != 0:
        return [Finding("bubblewrap", Verdict.REMARK, f"does not work: {answer.text}")]
    return [Finding("bubblewrap", Verdict.GOOD, _version(["bwrap", "--version"]))]


def _network_namespaces() -> list[Finding]:
    if os.geteuid() != 0:
        follows = "networks of their own for control plane and nodes need root; everything else works without"
        return [Finding("root", Verdict.REMARK, "no", follows)]
    answer = _run(["unshare", "--net", "true"])
    if answer is not None and answer.code == 0:
        return [Finding("root", Verdict.GOOD, "yes, and network namespaces can be made")]
    return [Finding("root", Verdict.REMARK, "yes, but network namespaces are refused", answer.text if answer else "")]


def _nftables() -> list[Finding]:
    answer = _run(["nft", "list", "tables"])
    if answer is None:
        return [Finding("nft", Verdict.REMARK, "not installed", "service addresses are served by a user-space proxy")]
    if answer.code != 0:
        follows = "service addresses are served by a user-space proxy"
        return [Finding("nft", Verdict.REMARK, f"refused: {answer.text}", follows)]
    return [Finding("nft", Verdict.GOOD, _version(["nft", "--version"]))]


def _etcd() -> list[Finding]:
    if shutil.which("etcd") is None:
        follows = "objects are kept in SQLite; `up --storage etcd` needs Debian's etcd-server"
        return [Finding("etcd", Verdict.REMARK, "not installed", follows)]
    return [Finding("etcd", Verdict.GOOD, _version(["etcd", "--version"]))]


def _sshd() -> list[Finding]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None:
        return [Finding("sshd", Verdict.REMARK, "not installed", "SSH tunnels end in the embedded server")]
    return [Finding("sshd", Verdict.GOOD, _version([sshd, "-V"]))]


def _kubectls() -> list[Finding]:
    """Every kubectl on the PATH: several versions side by side are what the tests want."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    first = shutil.which("kubectl")
    # Versioned ones may lie beside the one the PATH leads to.
    folders += [Path(first).resolve().parent] if first else []
    programs = sorted({path.resolve() for folder in folders for path in folder.glob("kubectl*") if _is_kubectl(path)})
    if not programs:
        follows = "install one to talk to the cluster: https://kubernetes.io/docs/tasks/tools/"
        return [Finding("kubectl", Verdict.REMARK, "not installed", follows)]
    return [Finding("kubectl", Verdict.GOOD, f"{_kubectl_version(path)}  {path}") for path in programs]


def _is_kubectl(path: Path) -> bool:
    return bool(re.fullmatch(r"kubectl[-_.]?v?[\d.]*", path.name)) and os.access(path, os.X_OK) and path.is_file()


def _kubectl_version(path: Path) -> str:
    answer = _run([str(path), "version", "--client", "-o", "json"])
    found = re.search(r'"gitVersion":\s*"([^"]+)"', answer.whole) if answer else None
    return found.group(1) if found else "unknown version"


def _inotify() -> list[Finding]:
    watches = _read("/proc/sys/fs/inotify/max_user_instances")
    if watches.isdigit() and int(watches) < 64:
        return [Finding("inotify", Verdict.REMARK, f"{watches} instances", "programs in pods may run out of them")]
    return []


_CHECKS: Final[Sequence[Callable[[], list[Finding]]]] = (
    _python, _loopback, _low_ports, _user_namespaces, _bubblewrap, _network_namespaces, _nftables, _etcd, _sshd,
    _kubectls, _inotify,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Run:
    code: int
    whole: str

    @property
    def text(self) -> str:
        lines = [line for line in self.whole.splitlines() if line.strip()]
        return lines[0] if lines else f"exit code {self.code}"


def _run(argv: Sequence[str]) -> _Run | None:
    """None if the program is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TRY_SECONDS, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Run(1, str(error))
    return _Run(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


def _version(argv: Sequence[str]) -> str:
    answer = _run(argv)
    lines = [line.strip() for line in answer.whole.splitlines() if re.search(r"\d", line)] if answer else []
    # OpenSSH before 9.2 answers -V with a usage text, whose second line has the version.
    versions = [line for line in lines if not line.startswith(("usage", "unknown option"))]
    return versions[0] if versions else "installed"


def _can_listen(address: str, port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"
