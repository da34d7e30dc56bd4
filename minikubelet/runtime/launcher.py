"""A small process that forks containers for the kubelet: `python -I -S -c "…; main(fd)"`.

My job: answer each request on the control socket with a fork, put the fork into its namespaces, reap. I own no
container: each has its own channel to the kubelet. The kubelet's `launching` starts me and is my only client.

Why a process of its own: forking the kubelet would copy threads' locks and a big heap; starting a fresh interpreter
for every container or exec would cost 25 ms each. I stay single-threaded, so forking is safe, and small, so the
copies that stay (one `init` per container) share nearly all their memory with me.

Rule: I never read a container's specification; only its own fork does. When the kubelet goes, I go, and PDEATHSIG
takes every container along: containers do not survive their kubelet, they are started anew by the restart policy.
"""

import contextlib
import gc
import os
import signal
import socket
from typing import Any, NoReturn

from minikubelet.runtime import channel, kernel, rootview
from minikubelet.runtime.init import Init, fail


def main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    kernel.set_name("miniplane-launcher")
    kernel.set_title("miniplane-launcher")
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the kubelet decides when we end
    signal.signal(signal.SIGCHLD, _reap)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    gc.collect()
    gc.freeze()
    gc.disable()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _, descriptors = channel.receive(control)
            if os.fork() == 0:
                control.close()
                _serve(socket.socket(fileno=descriptors[0]))
            os.close(descriptors[0])


def _reap(number: int, frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # 0: the rest still run
            pass


def _serve(line: socket.socket) -> NoReturn:
    """In the fork: become what the message on `line` asks for. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.set_title("miniplane-init")
    try:
        spec, descriptors = channel.receive(line)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if spec["join_flags"]:
            kernel.join(descriptors.pop(), spec["join_flags"])
        if spec["kind"] == "exec":
            _announce(line)
            Init(line, spec, descriptors, host_proc).run()
        _enter_namespaces(line, spec)
        os.setsid()
        if spec["kind"] == "pause":
            _pause(line, host_proc)
        _run_container(line, spec, descriptors, host_proc)
    except rootview.ViewError as error:
        fail(line, error.what, error.number)
    except OSError as error:
        fail(line, str(error.filename or "start"), error.errno or 0)
    except EOFError:  # the kubelet gave up before it said what it wanted
        os._exit(0)
    except BaseException:  # a fork must never fall back into the request loop
        os._exit(1)


def _announce(line: socket.socket) -> None:
    channel.send(line, ("forked", os.getpid()), (os.pidfd_open(os.getpid()),))


def _enter_namespaces(line: socket.socket, spec: dict[str, Any]) -> None:
    """Returns in the process that will be init: in a new PID namespace that can only be a child made afterwards."""
    if not (spec["unshare_flags"] or spec["join_flags"]):
        _announce(line)
        return
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(spec["unshare_flags"])
    if spec["unshare_flags"] & kernel.Namespace.USER:
        _map_ids(spec, user, group)
    pid, pidfd = kernel.fork_sibling()
    if pid:
        try:
            channel.send(line, ("forked", pid), (pidfd,))
        except OSError:  # the kubelet gave up; nobody else knows of this process
            os.kill(pid, signal.SIGKILL)
        os._exit(0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _map_ids(spec: dict[str, Any], user: int, group: int) -> None:
    """Without privilege one user can be mapped: ourselves, to whom the container is to run as."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{spec['map_user']} {user} 1")
    _write("/proc/self/gid_map", f"{spec['map_group']} {group} 1")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _run_container(line: socket.socket, spec: dict[str, Any], stdio: list[int], host_proc: int) -> NoReturn:
    kernel.set_name("miniplane-init")
    proc = host_proc
    if spec["view"]:
        if spec["hostname"]:
            kernel.set_hostname(spec["hostname"])
        rootview.build(spec)
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(host_proc)
    if spec["nested_user"]:
        # Only now: /proc of a joined PID namespace can be mounted by the owner of that namespace alone.
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.Namespace.USER)
        _map_ids(spec, user, group)
    if spec["reap_orphans"]:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    Init(line, spec, stdio, proc).run()


def _pause(line: socket.socket, proc: int) -> NoReturn:
    """Hold a pod's shared PID namespace open and reap in it, until the kubelet kills us or hangs up."""
    kernel.set_name("pause")
    kernel.set_title("pause")
    os.close(proc)
    signal.signal(signal.SIGCHLD, _reap)
    channel.send(line, ("started",))
    with contextlib.suppress(EOFError, OSError):
        channel.receive(line)
    os._exit(0)
