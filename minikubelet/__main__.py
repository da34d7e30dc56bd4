"""`python -m minikubelet`: flags, logging, signals, exit code.

My job: 0 after SIGTERM or SIGINT, 1 with one clear line when a setting, a certificate or an address cannot be used.
"""

import asyncio
import logging
import signal
import sys

from certs.errors import CertsError
from minikubelet import logline
from minikubelet.config import Config, parse
from minikubelet.kubeletconfiguration import InvalidConfiguration
from wire.kubeconfig import InvalidKubeconfig
from wire.loop import report

EXPECTED = (InvalidConfiguration, InvalidKubeconfig, CertsError, OSError)


async def _serve(config: Config) -> None:
    from minikubelet.kubelet import serve

    work = asyncio.create_task(serve(config), name="kubelet")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        logging.getLogger("minikubelet").info("stopped")


def main() -> int:
    try:
        config = parse(sys.argv[1:])
        logline.configure(logging.DEBUG if config.verbose else logging.INFO)
        import uvloop

        uvloop.run(_serve(config))
    except EXPECTED as error:
        return _say(error)
    except BaseExceptionGroup as group:
        # The parts run in task groups; what went wrong in one of them is still one line.
        known, rest = group.split(EXPECTED)
        if known is None or rest is not None:
            raise
        return _say(_first(known))
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _say(error: BaseException) -> int:
    print(f"minikubelet: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
