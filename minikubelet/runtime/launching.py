"""The kubelet's end of the launcher: start it once, ask it for processes, hear how they began and ended.

My job: turn one launch into a `Launched` or a `LaunchFailed`. I own the launcher process and its control socket; each
`Launched` owns its channel and its pidfd. `process` and `execution` use me.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from minikubelet.runtime import channel
from minikubelet.runtime.init import KILL_TREE
from minikubelet.runtime.interface import RuntimeFailure
from minikubelet.runtime.streams import readable, writable

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
BOOT = "import sys; sys.path.insert(0, {root!r}); from minikubelet.runtime.launcher import main; main({descriptor})"
SHUTDOWN_SECONDS = 2.0


class LaunchFailed(RuntimeFailure):
    """The process did not come to be. `step` is init's word for how far it got ("exec", "chdir", "mount …")."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}" if number else step)
        self.step, self.number = step, number


class Launched:
    """One forked process tree seen from the kubelet. Lives until `close`, which does not end the process."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.pid = 0
        self.pidfd = -1
        self.terminal = -1
        self._status: int | None = None

    async def begin(self) -> None:
        """Hear of the fork, the terminal and the start. Raises LaunchFailed.

        The fork is told by one process and all else by its child, so they may come in any order.
        """
        has_started = False
        while not (has_started and self.pidfd >= 0):
            message, descriptors = await self._line.receive()
            match message:
                case ("forked", int(pid)):
                    self.pid, self.pidfd = pid, descriptors[0]
                case ("terminal",):
                    self.terminal = descriptors[0]
                case ("started",):
                    has_started = True
                case ("exited", int(status)):
                    self._status = status
                case ("failed", str(step), int(number)):
                    raise LaunchFailed(step, number)
                case _:
                    raise LaunchFailed("the process was killed while it started", 0)

    async def wait(self) -> int:
        """Wait status of the main process; that of a SIGKILL if its init was killed before it could tell."""
        while self._status is None:
            message, _ = await self._line.receive()
            self._status = int(message[1]) if message and message[0] == "exited" else int(signal.SIGKILL)
        return self._status

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def abandon(self, number: int) -> None:
        """End what was begun and not waited for, with signal `number`. What is told after this goes to a closed line:
        the teller ends it."""
        while self.pidfd < 0 and (received := self._line.receive_now()) is not None and received[0]:
            match received:
                case ("forked", int(pid)), [pidfd]:
                    self.pid, self.pidfd = pid, pidfd
                case _, descriptors:
                    for descriptor in descriptors:
                        os.close(descriptor)
        self.signal(number)
        self.close()

    def take_terminal(self) -> int:
        """The master of the process's terminal; from now on the caller's to close."""
        terminal, self.terminal = self.terminal, -1
        return terminal

    def close(self) -> None:
        self._line.close()
        for descriptor in (self.pidfd, self.terminal):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.terminal = -1


class Line:
    """Messages from one forked process, as they come. One reader."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    async def send(self, message: Any, descriptors: tuple[int, ...]) -> None:
        data = channel.encode(message)
        sent = socket.send_fds(self._socket, [data], list(descriptors))  # an empty socket takes the first bytes
        await asyncio.get_running_loop().sock_sendall(self._socket, data[sent:])

    async def receive(self) -> tuple[tuple[Any, ...], list[int]]:
        """The next message and the descriptors that came with it; an empty one when the other end is gone."""
        while (received := self.receive_now()) is None:
            await readable(self._socket.fileno())
        return received

    def receive_now(self) -> tuple[tuple[Any, ...], list[int]] | None:
        """As `receive`; None if nothing is there yet."""
        while (message := self._next()) is None:
            try:
                data, descriptors = channel.receive_part(self._socket, 65536)
            except BlockingIOError:
                return None
            except (EOFError, ConnectionError):
                return (), []
            self._buffer += data
            self._descriptors += descriptors
        # Each message carries at most one, and they arrive in order.
        carries = message[0] in ("forked", "terminal")
        return message, [self._descriptors.popleft()] if carries and self._descriptors else []

    def _next(self) -> tuple[Any, ...] | None:
        if len(self._buffer) < channel.LENGTH.size:
            return None
        (length,) = channel.LENGTH.unpack_from(self._buffer)
        end = channel.LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[channel.LENGTH.size : end])
        del self._buffer[:end]
        message: tuple[Any, ...] = channel.decode(body)
        return message

    def close(self) -> None:
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


class Launcher:
    """The launcher process. Lives from `start` to `close`; started anew by the next launch if it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._requesting = asyncio.Lock()

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = BOOT.format(root=str(PACKAGE_ROOT), descriptor=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "frozen_modules=on", "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def launch(self, spec: dict[str, Any], descriptors: tuple[int, ...]) -> Launched:
        """Fork and begin. `descriptors`: the standard streams, then the process to join if `spec` says so; they stay
        the caller's. Raises LaunchFailed; nothing is left behind then."""
        line = Line(await self._request())
        launched = Launched(line)
        try:
            await line.send(spec, descriptors)
            await launched.begin()
        except BaseException as error:
            # Init of a PID namespace takes all with it; elsewhere it has to end its tree itself.
            launched.abandon(KILL_TREE if spec.get("reap_orphans") else signal.SIGKILL)
            if isinstance(error, ConnectionError):
                raise LaunchFailed("the launcher is gone", error.errno or 0) from error
            raise
        return launched

    async def _request(self) -> socket.socket:
        """The kubelet's end of a new channel whose other end a fresh fork holds."""
        async with self._requesting:
            while True:
                try:
                    return self._try_request()
                except BlockingIOError:  # hundreds are on their way already
                    assert self._control is not None
                    await writable(self._control.fileno())

    def _try_request(self) -> socket.socket:
        for attempt in (1, 2):
            if self._control is None or self._process is None or self._process.poll() is not None:
                self.close()
                self.start()
            assert self._control is not None
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                try:
                    socket.send_fds(self._control, [channel.encode(("fork",))], [theirs.fileno()])
                except BlockingIOError:
                    ours.close()
                    raise
                except OSError as error:
                    ours.close()
                    if attempt == 2:
                        raise LaunchFailed("the launcher does not answer", error.errno or 0) from error
                    self.close()
                else:
                    return ours
        raise AssertionError("either returned or raised")

    def close(self) -> None:
        """Ends the launcher and by that every container it forked."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
