"""exec, attach and run: a client's streams joined to a process.

My job: parameters, look-up, and the pumps between session and process. I own the exec'd process for as long as the
client stays. Neighbours: `wire.remotecommand` speaks to the client (SPDY or WebSocket), the runtime runs the command.
Rule: the status is sent only after every byte of output; a client that leaves ends its command.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from minikubelet.logline import kv
from minikubelet.pods.workers import PodWorkers
from minikubelet.runtime.interface import (
    ByteSink,
    ByteSource,
    Container,
    ExecProcess,
    ExitStatus,
    Process,
    RuntimeFailure,
)
from minikubelet.server.answers import HTTPError, text
from minikubelet.server.lookup import attachable, find_pod, running_container
from wire.errors import WireError
from wire.protocol.status import exit_status, session_error, session_success
from wire.remotecommand import RemoteCommandSession, accept_remotecommand
from wire.upgrade import TakenOver, is_upgrade

JSON = dict[str, Any]

DRAIN = 1.0
"""After the command's end: how long silent output (a background child holds the pipe) is waited for."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams the client wants. The kubelet's own parameter names: input, output, error, tty."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, request: web.BaseRequest) -> "StreamOptions":
        """Raises HTTPError 400. Exactly `1` is true; a terminal has no stderr of its own."""
        stdin, stdout, stderr, tty = (request.query.get(name) == "1" for name in ("input", "output", "error", "tty"))
        if tty and stderr:
            stderr = False
        if not (stdin or stdout or stderr):
            raise HTTPError(400, "you must specify at least 1 of stdin, stdout, stderr")
        return cls(stdin, stdout, stderr, tty)


async def exec_in_container(request: web.BaseRequest, workers: PodWorkers, namespace: str, pod: str, uid: str | None,
                            name: str) -> web.StreamResponse:
    options = StreamOptions.of(request)
    container = running_container(find_pod(workers, namespace, pod, uid), name)
    argv = tuple(request.query.getall("command", []))
    if not is_upgrade(request.headers):
        raise HTTPError(500, "Upgrade request required")
    async with accept_remotecommand(request, stdin=options.stdin, stdout=options.stdout, stderr=options.stderr,
                                    tty=options.tty) as session:
        await session.finish(await _exec(session, container, argv, options))
    return TakenOver()


async def _exec(session: RemoteCommandSession, container: Container, argv: tuple[str, ...],
                options: StreamOptions) -> JSON:
    """The Status the client gets."""
    try:
        async with await container.exec(argv, tty=options.tty, stdin=options.stdin) as process:
            status = await _joined(session, process, process)
    except RuntimeFailure as error:
        return session_error(f"error executing command in container: {error}")
    return exit_status(0 if status is None else status.code)


async def attach_to_container(request: web.BaseRequest, workers: PodWorkers, namespace: str, pod: str,
                              uid: str | None, name: str) -> web.StreamResponse:
    options = StreamOptions.of(request)
    container = attachable(find_pod(workers, namespace, pod, uid), name)
    # The terminal is the container's, whatever the query says.
    tty = container.spec.tty
    if not is_upgrade(request.headers):
        raise HTTPError(500, "Upgrade request required")
    async with accept_remotecommand(request, stdin=options.stdin, stdout=options.stdout,
                                    stderr=options.stderr and not tty, tty=tty) as session:
        await session.finish(await _attach(session, container, options))
    return TakenOver()


async def _attach(session: RemoteCommandSession, container: Container, options: StreamOptions) -> JSON:
    try:
        async with await container.attach(stdin=options.stdin) as process:
            await _joined(session, process, None)
    except RuntimeFailure as error:
        return session_error(f"error attaching to container: {error}")
    return session_success()


# Pumps

class _Output:
    """One direction from process to client. Knows whether it moves, so that the end can be told from a pause."""

    def __init__(self, source: ByteSource, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._source, self._write = source, write
        self.moved = 0
        self.is_writing = False

    async def run(self) -> None:
        while data := await self._source.read():
            self.moved += 1
            self.is_writing = True
            await self._write(data)
            self.is_writing = False


async def _joined(session: RemoteCommandSession, process: Process, command: ExecProcess | None) -> ExitStatus | None:
    """Move bytes until the command (exec) or its output (attach) is over, or the client has gone (then None)."""
    outputs = [_Output(process.stdout, session.write_stdout)]
    if process.stderr is not None:
        outputs.append(_Output(process.stderr, session.write_stderr))
    try:
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(output.run(), name="exec output") for output in outputs]
            beside = [tasks.create_task(_input(session, process.stdin), name="exec input"),
                      tasks.create_task(_resizes(session, process), name="exec resize")]
            over = tasks.create_task(_until_over(command, outputs, pumps), name="exec end")
            left = tasks.create_task(session.closed.wait(), name="exec client")
            await asyncio.wait((over, left), return_when=asyncio.FIRST_COMPLETED)
            for task in (*pumps, *beside, left):
                task.cancel()
            if not over.done():
                over.cancel()
                return None
            return over.result()
    except* WireError as group:
        log.debug("exec.client.lost %s", kv(error=group.exceptions[0]))
    return None


async def _until_over(command: ExecProcess | None, outputs: list[_Output],
                      pumps: list["asyncio.Task[None]"]) -> ExitStatus | None:
    if command is None:
        await asyncio.wait(pumps)
        return None
    status = await command.wait()
    while True:
        moved = sum(output.moved for output in outputs)
        _, pending = await asyncio.wait(pumps, timeout=DRAIN)
        is_moving = any(output.is_writing for output in outputs) or moved != sum(output.moved for output in outputs)
        if not pending or not is_moving:
            return status


async def _input(session: RemoteCommandSession, sink: ByteSink | None) -> None:
    if sink is None:
        return
    try:
        while data := await session.read_stdin():
            await sink.write(data)
        await sink.close()
    except BrokenPipeError:
        # The process reads no more; the client's bytes go nowhere, as with a shell's pipe.
        while await session.read_stdin():
            pass


async def _resizes(session: RemoteCommandSession, process: Process) -> None:
    while (size := await session.next_resize()) is not None:
        process.resize(size.width, size.height)


async def run_in_container(request: web.BaseRequest, workers: PodWorkers, namespace: str, pod: str, uid: str | None,
                           name: str) -> web.StreamResponse:
    """POST /run: the output of one command as a body."""
    container = running_container(find_pod(workers, namespace, pod, uid), name)
    argv = tuple(request.query.get("cmd", "").split(" "))
    try:
        async with await container.exec(argv) as process:
            output = bytearray()
            errors = bytearray()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_collect(process.stdout, output), name="run stdout")
                if process.stderr is not None:
                    tasks.create_task(_collect(process.stderr, errors), name="run stderr")
            status = await process.wait()
    except RuntimeFailure as error:
        raise HTTPError(500, str(error)) from error
    if status.code != 0:
        return text(f"command '{' '.join(argv)}' exited with {status.code}: {errors.decode('utf-8', 'replace')}", 500)
    return web.Response(body=bytes(output + errors), content_type="application/json")


async def _collect(source: ByteSource, into: bytearray) -> None:
    while data := await source.read():
        into += data
