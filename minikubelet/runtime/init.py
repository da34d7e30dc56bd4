"""The first process of a container, and the companion of an exec'd command: start it, pass signals on, reap, report.

My job: everything between fork and exec, then waiting. I own the container's process tree: when the main process is
over, so is all else in it. `launcher` forks me; `process` talks to me over the channel:
    to me    spec and standard descriptors, once
    from me  ("terminal", fd) if a tty was asked for, ("started",) or ("failed", step, errno),
             then ("exited", wait status); `launcher` says ("forked", pid, pidfd) at any time among them
Rule: no import that is not needed here; every container carries a copy of this process.
"""

import contextlib
import errno
import os
import signal
import socket
from typing import Any, NoReturn

from minikubelet.runtime import channel, kernel, rootview

# SIGRTMAX asks us to kill the whole tree and report; every other signal is the main process's.
KILL_TREE = signal.SIGRTMAX
KEPT_BACK = {signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE, KILL_TREE}


class Init:
    """Runs one main process. Lives exactly as long as it."""

    def __init__(self, line: socket.socket, spec: dict[str, Any], stdio: list[int], proc: int) -> None:
        """`proc` is a /proc that numbers processes as we do."""
        self.line, self.spec, self.stdio, self.proc = line, spec, stdio, proc

    def run(self) -> NoReturn:
        """Never returns: the exit code of init itself means nothing, the report on the channel counts."""
        main = self._start()
        for descriptor in {*self.stdio}:
            os.close(descriptor)
        status = self._supervise(main)
        if self.spec["reap_orphans"]:
            self._kill_tree()
        with contextlib.suppress(OSError):  # nobody left to hear it
            channel.send(self.line, ("exited", status))
        os._exit(0)

    def _start(self) -> int:
        try:
            if self.spec["terminal"]:
                self._open_terminal()
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            reader, writer = os.pipe2(os.O_CLOEXEC)
            ourselves = os.getpid()
            main = os.fork()
            if main == 0:
                become(self.spec, self.stdio, writer, ourselves)
            os.close(writer)
            report = os.read(reader, 512)
            os.close(reader)
            if report:
                os.waitpid(main, 0)
                number, _, step = report.decode(errors="replace").partition(" ")
                fail(self.line, step, int(number))
            channel.send(self.line, ("started",))
            return main
        except OSError as error:
            fail(self.line, str(error.filename or "start"), error.errno or 0)

    def _open_terminal(self) -> None:
        """A pair of the container's own devpts, so that its programs can name their terminal."""
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        kernel.unlock_terminal(master)
        name = f"/dev/pts/{kernel.terminal_number(master)}"
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.spec["console"]:
            rootview.bind_terminal(name)
        if self.spec["owner"] is not None:
            with contextlib.suppress(OSError):
                os.fchown(slave, self.spec["owner"], -1)
        for descriptor in {*self.stdio}:
            os.close(descriptor)
        self.stdio = [slave, slave, slave]
        channel.send(self.line, ("terminal",), (master,))
        os.close(master)

    def _supervise(self, main: int) -> int:
        """Waits for `main`; returns its wait status. Reaps whatever else is ours."""
        wanted = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        while True:
            number = signal.sigwait(wanted)
            if number == signal.SIGCHLD:
                status = self._reap(main)
                if status is not None:
                    return status
            elif number == KILL_TREE:
                self._kill_tree(main)
            elif number not in KEPT_BACK:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(main, number)

    def _reap(self, main: int) -> int | None:
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == main:
                    found = status
        return found

    def _kill_tree(self, main: int | None = None) -> None:
        """SIGKILL to every descendant until none is left; with `main` one round only: its end is waited for."""
        while True:
            for pid in self._descendants(os.getpid() if main is None else main):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if main is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(main, signal.SIGKILL)
                return
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _descendants(self, pid: int) -> list[int]:
        found: list[int] = []
        queue = [pid]
        while queue:
            children = children_of(self.proc, queue.pop())
            found += children
            queue += children
        return found


def children_of(proc: int, pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        tasks = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        try:
            for task in os.listdir(tasks):
                with open(os.open(f"{task}/children", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tasks), "rb") as file:
                    found += map(int, file.read().split())
        finally:
            os.close(tasks)
    return found


def fail(line: socket.socket, step: str, number: int) -> NoReturn:
    with contextlib.suppress(OSError):
        channel.send(line, ("failed", step, number))
    os._exit(0)


def become(spec: dict[str, Any], stdio: list[int], errors: int, parent: int) -> NoReturn:
    """Turn this fresh fork into the program. The error pipe closes on exec, so silence on it means success."""
    step = "start"
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # It may have died before we could ask for its signal. 0: it is in an outer namespace.
        if os.getppid() not in (parent, 0):
            os._exit(127)
        os.setsid()
        errors = _arrange_descriptors(stdio, errors)
        if spec["terminal"]:
            kernel.take_terminal(0)
        step = "user"
        _drop_privileges(spec)
        step = "chdir"
        if spec["cwd"]:
            _change_directory(spec)
        step = "exec"
        _reset_signals()
        os.execvpe(spec["argv"][0], spec["argv"], dict(spec["env"]))
    except OSError as error:
        os.write(errors, f"{error.errno} {step}".encode())
    except ValueError:  # a NUL in an argument
        os.write(errors, f"{errno.EINVAL} {step}".encode())
    os._exit(127)


def _arrange_descriptors(stdio: list[int], errors: int) -> int:
    # Lift everything above 2 first: one of the descriptors may be where another has to go.
    *high, keep = [kernel.duplicate_above(descriptor, 3) for descriptor in (*stdio, errors)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=True)
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 20)
    return keep


def _drop_privileges(spec: dict[str, Any]) -> None:
    keep = frozenset(spec["capabilities"])
    if spec["set_user"]:
        uid, gid, groups = spec["set_user"]
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        kernel.limit_capabilities(keep)
        os.setresuid(uid, uid, uid)
        if uid != 0:
            keep = frozenset()
    elif spec["limit_capabilities"]:
        kernel.limit_capabilities(keep)
    if spec["limit_capabilities"]:
        kernel.set_capabilities(keep if spec["is_root"] else frozenset())
    if spec["no_new_privileges"]:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it


def _change_directory(spec: dict[str, Any]) -> None:
    try:
        os.chdir(spec["cwd"])
    except OSError:
        if not spec["lenient_cwd"]:
            raise
        os.chdir(spec["scratch"])


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
