"""A client at a container's own standard streams: `kubectl attach`, `kubectl run -it`.

My job: output from the moment of attaching, stdin for who asked for it, and nothing taken along when the client goes.
An `Attachment` owns its two listeners; the streams are the container's.
"""

import errno
from types import TracebackType
from typing import TYPE_CHECKING, Self

from minikubelet.runtime.interface import ByteSink, ByteSource, Stream
from minikubelet.runtime.streams import PipeSink

if TYPE_CHECKING:
    from minikubelet.runtime.container import ProcessContainer


class AttachedInput:
    """The container's stdin in a client's hands. Closing it ends the container's input only under stdinOnce. A
    container that was started without stdin takes nothing."""

    def __init__(self, sink: PipeSink | None, *, once: bool) -> None:
        self._sink, self._once = sink, once

    async def write(self, data: bytes) -> None:
        if self._sink is None:
            raise BrokenPipeError(errno.EPIPE, "the container has no stdin")
        await self._sink.write(data)

    async def close(self) -> None:
        if self._once and self._sink:
            await self._sink.close()


class Attachment:
    """Implements interface.AttachSession."""

    def __init__(self, container: "ProcessContainer", *, stdin: bool) -> None:
        spec = container.spec
        self._container = container
        self._stdout = container.output.listen(Stream.STDOUT)
        self._stderr = None if spec.tty else container.output.listen(Stream.STDERR)
        self._stdin = AttachedInput(container.stdin, once=spec.stdin_once) if stdin else None

    @property
    def stdin(self) -> ByteSink | None:
        return self._stdin

    @property
    def stdout(self) -> ByteSource:
        return self._stdout

    @property
    def stderr(self) -> ByteSource | None:
        return self._stderr

    def resize(self, width: int, height: int) -> None:
        self._container.resize(width, height)

    async def aclose(self) -> None:
        self._container.output.forget(Stream.STDOUT, self._stdout)
        self._stdout.finish()
        if self._stderr:
            self._container.output.forget(Stream.STDERR, self._stderr)
            self._stderr.finish()
        if self._stdin:
            await self._stdin.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
