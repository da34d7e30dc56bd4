"""`python -m miniapiserver`: flags, logging, signals, exit code.

My job: 0 after SIGTERM or SIGINT, 1 with one clear line when the configuration or the storage cannot be used.
"""

import asyncio
import logging
import signal
import sys

from certs.errors import CertsError
from miniapiserver.config import ConfigError, parse
from miniapiserver.server import serve
from miniapiserver.storage.interface import StorageError
from wire import loop


async def _until_signalled(work: "asyncio.Task[None]") -> None:
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        logging.getLogger("apiserver").info("stopped")


async def _main() -> None:
    asyncio.get_running_loop().set_exception_handler(loop.report)
    await _until_signalled(asyncio.create_task(serve(parse(sys.argv[1:])), name="apiserver"))


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(asctime)s %(name)s %(message)s")
    try:
        import uvloop

        uvloop.run(_main())
    except (ConfigError, StorageError, CertsError, OSError) as error:
        print(f"miniapiserver: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
