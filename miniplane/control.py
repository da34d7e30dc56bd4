"""The control socket: how commands talk to a running supervisor.

My job: one JSON line there, one back, over a UNIX socket that only its owner may open. I own the connections, not what
is asked. A reply is the answer's object, or `{"error": …}`.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self

from miniplane.errors import ControlError, NotRunning
from miniplane.state import StateDir

Answer = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]

MAX_LINE: Final = 64 * 1024
IDLE_SECONDS: Final = 10.0


class ControlServer:
    """Serves a listening socket with one coroutine. `async with` it; leaving ends every connection."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener, self._answer = listener, answer
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener, limit=MAX_LINE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                line = await reader.readline()
            if line:
                writer.write(json.dumps(await self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # nobody there any more, or nobody we know
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ControlError("a request is a JSON object")
            return await self._answer(request)
        except (ControlError, ValueError) as error:
            return {"error": str(error)}


def ask(state: StateDir, request: Mapping[str, Any], timeout: float = 60.0) -> dict[str, Any]:
    """Raises NotRunning if no supervisor listens, ControlError if it refuses."""
    with _connect(state) as connection:
        connection.settimeout(timeout)
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(_line(connection))
        except (OSError, ValueError) as error:
            raise ControlError(f"{state.control_socket}: no answer ({error})") from error
    if "error" in reply:
        raise ControlError(str(reply["error"]))
    return dict(reply)


def is_running(state: StateDir) -> bool:
    try:
        _connect(state).close()
    except NotRunning:
        return False
    return True


def _line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = connection.recv(MAX_LINE)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def _connect(state: StateDir) -> socket.socket:
    """Through the folder's descriptor: the path itself may be longer than a socket address may be."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(state.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{state.control_socket.name}")
        finally:
            os.close(folder)
    except OSError as error:
        connection.close()
        raise NotRunning(f"no cluster runs in {state.path}: `miniplane up` starts one") from error
    return connection
