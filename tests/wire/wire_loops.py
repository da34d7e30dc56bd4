"""Run one async test on both event loops: asyncio's own and uvloop."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test as two synchronous ones, each in a loop of its own and at most 30 seconds long."""

    @functools.wraps(test)
    def run(event_loop_kind: str, **fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await test(**fixtures)

        with asyncio.Runner(loop_factory=LOOPS[event_loop_kind]) as runner:
            runner.run(bounded())

    kind = inspect.Parameter("event_loop_kind", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [kind, *inspect.signature(test).parameters.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    return pytest.mark.parametrize("event_loop_kind", list(LOOPS))(run)
