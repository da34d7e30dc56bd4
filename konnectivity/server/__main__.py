"""`python -m konnectivity.server`: see `--help`; flags are upstream's."""

import asyncio
import sys
from collections.abc import Sequence

from konnectivity.process import Signals, run
from konnectivity.server.config import load
from konnectivity.server.server import Server


async def main(arguments: Sequence[str] | None) -> None:
    config = load(arguments)
    signals = Signals()
    async with Server(config) as server:
        await signals.asked.wait()
        if config.graceful_shutdown_timeout > 0:
            async with asyncio.TaskGroup() as group:
                draining = group.create_task(server.drain(config.graceful_shutdown_timeout))
                insisted = group.create_task(signals.insisted.wait())
                await asyncio.wait([draining, insisted], return_when=asyncio.FIRST_COMPLETED)
                draining.cancel()
                insisted.cancel()


if __name__ == "__main__":
    sys.exit(run(main))
