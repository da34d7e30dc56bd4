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


async def _serve(config: Config) -> None:
    from minikubelet.kubelet import serve

    work = asyncio.create_task(serve(config), name="kubelet")
    loop = asyncio.get_running_loop()
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
    except (InvalidConfiguration, InvalidKubeconfig, CertsError, OSError) as error:
        print(f"minikubelet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
