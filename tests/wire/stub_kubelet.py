"""A small kubelet (and, under API server paths, a small API server) for real clients: real processes, real sockets."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from wire.errors import WireError
from wire.net import dial_tcp
from wire.portforward import accept_portforward
from wire.protocol.status import exit_status, session_success
from wire.remotecommand import HandshakeRefused, RemoteCommandSession, accept_remotecommand
from wire.stream import Stream, open_stream
from wire.upgrade import TakenOver

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "p", "namespace": "default", "uid": "u"},
    "spec": {"containers": [{"name": "c", "image": "i", "stdin": True, "tty": False}], "nodeName": "n"},
    "status": {"phase": "Running"},
}
DISCOVERY: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"],
             "shortNames": ["po"]}
        ],
    },
    "/api/v1/namespaces/default/pods/p": POD,
}  # fmt: skip


def flag(request: web.BaseRequest, api: str, kubelet: str) -> bool:
    return request.query.get(api) == "true" or request.query.get(kubelet) == "1"


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    """Exec, attach and port-forward under both kinds of path; discovery and one pod beside them."""
    if request.path in DISCOVERY:
        return web.Response(body=orjson.dumps(DISCOVERY[request.path]), content_type="application/json")
    parts = request.path.strip("/").split("/")
    verb = parts[-1] if parts[0] == "api" else parts[0]
    try:
        if verb in ("exec", "attach"):
            return await command(request, verb)
        if verb in ("portforward", "portForward"):
            async with accept_portforward(request, dial, describe=describe):
                pass
            return TakenOver()
    except HandshakeRefused as refused:
        return refused.response
    except WireError:
        return TakenOver()
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
            "message": f"no {request.path}"}  # fmt: skip
    return web.Response(status=404, body=orjson.dumps(body), content_type="application/json")


async def dial(port: int) -> Stream:
    return await open_stream(await dial_tcp("127.0.0.1", port, timeout=2))


def describe(port: int, error: Exception) -> str:
    return f"error forwarding port {port} to pod p, uid u: {error}"


async def command(request: web.BaseRequest, verb: str) -> web.StreamResponse:
    wants = {
        "stdin": flag(request, "stdin", "input"),
        "stdout": flag(request, "stdout", "output"),
        "stderr": flag(request, "stderr", "error"),
        "tty": flag(request, "tty", "tty"),
    }
    argv = request.query.getall("command", ["cat"])
    async with accept_remotecommand(request, **wants) as session:
        if verb == "exec" and argv[0] == "--crash":
            raise RuntimeError("container is gone")
        if wants["tty"]:
            code = await run_in_terminal(session, argv)
        else:
            code = await run(session, argv)
        await session.finish(session_success() if verb == "attach" else exit_status(code))
    return TakenOver()


async def run(session: RemoteCommandSession, argv: list[str]) -> int:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 20,
                                                   start_new_session=True)  # fmt: skip
    assert process.stdin and process.stdout and process.stderr

    async def feed() -> None:
        assert process.stdin
        with contextlib.suppress(ConnectionError):
            while data := await session.read_stdin():
                process.stdin.write(data)
                await process.stdin.drain()
            process.stdin.close()

    async def drain(reader: asyncio.StreamReader, write: Any) -> None:
        while data := await reader.read(1 << 16):
            await write(data)

    async def end_with_the_client() -> None:
        await session.closed.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    feeder, watcher = asyncio.create_task(feed()), asyncio.create_task(end_with_the_client())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(drain(process.stdout, session.write_stdout))
            group.create_task(drain(process.stderr, session.write_stderr))
        return await process.wait()
    finally:
        feeder.cancel()
        watcher.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def run_in_terminal(session: RemoteCommandSession, argv: list[str]) -> int:
    loop = asyncio.get_running_loop()
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(*argv, stdin=theirs, stdout=theirs, stderr=theirs,
                                                   preexec_fn=lambda: os.login_tty(0))  # fmt: skip
    os.close(theirs)

    async def feed() -> None:
        while data := await session.read_stdin():
            os.write(ours, data)

    async def resize() -> None:
        while size := await session.next_resize():
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", size.height, size.width, 0, 0))

    tasks = [asyncio.create_task(feed()), asyncio.create_task(resize())]
    try:
        while True:
            try:
                data = await loop.run_in_executor(None, os.read, ours, 65536)
            except OSError:
                break
            if not data:
                break
            await session.write_stdout(data)
        return await process.wait()
    finally:
        for task in tasks:
            task.cancel()
        os.close(ours)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """A TCP server in the pod: greets with what it got when the client half-closes, echoes a line otherwise."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
