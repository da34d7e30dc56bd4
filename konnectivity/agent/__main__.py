"""`python -m konnectivity.agent`: see `--help`; flags are upstream's."""

import asyncio
import sys
from collections.abc import Sequence

from konnectivity.agent.agent import Agent
from konnectivity.agent.config import load
from konnectivity.process import Signals, run

DRAIN_TIMEOUT = 5.0  # upstream waits for a second signal, for ever; a supervisor does not


async def main(arguments: Sequence[str] | None) -> None:
    config = load(arguments)
    signals = Signals()
    async with Agent(config) as agent:
        await signals.asked.wait()
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(agent.sync.drain(DRAIN_TIMEOUT))
            insisted = group.create_task(signals.insisted.wait())
            await asyncio.wait([draining, insisted], return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            insisted.cancel()


if __name__ == "__main__":
    sys.exit(run(main))
