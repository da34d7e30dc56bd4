"""Where pods find the API server when its virtual IP cannot be served.

My job: one probe of one address, and the environment that stands in for the Service's. Neighbours: the pods'
environment takes it. Where the proxy may not bind port 443, the API server's own address is used: the kubelet reaches
it, and its certificate covers it. This breaks only who compares the variables with the Service.
"""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from minikubelet.logline import kv
from minikubelet.serviceproxy.settings import Mode
from wire.kubeconfig import Access
from wire.net import join_host_port

JSON = dict[str, Any]

HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
HTTPS_PORT = "KUBERNETES_SERVICE_PORT_HTTPS"
REFUSED = (errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL)

log = logging.getLogger(__name__)


def refusal(address: str, port: int) -> OSError | None:
    """Why this process could never listen there. An address in use is no refusal: some proxy has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without it, a proxy that listens there in this very moment would find the address taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))  # permission is looked at before the port (inet_bind)
        except OSError as error:
            return error if error.errno in REFUSED else None
    return None


class APIServerAddress:
    """What pods are told instead of the VIP, if anything. Lives as long as the kubelet."""

    def __init__(self, mode: Mode, access: Callable[[], Access],
                 refused: Callable[[str], None] = lambda why: None) -> None:
        self._mode, self._access, self._refused = mode, access, refused
        self._told = False

    def environment(self, services: dict[str, str]) -> dict[str, str]:
        """`services` as computed; what has to be different. Empty where the VIP works."""
        host, port = services.get(HOST), services.get(PORT)
        if self._mode is not Mode.USERSPACE:
            return {}  # the kernel redirects, or somebody else does
        error = refusal(host, int(port)) if host and port else None
        if error is None:
            return {}
        access = self._access()
        self._tell(f"{join_host_port(host or '', port or '')} cannot be listened on ({error.strerror}): pods reach the "
                   f"API server at {join_host_port(access.host, access.port)}")
        return {HOST: access.host, PORT: str(access.port), HTTPS_PORT: str(access.port)}

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.warning("vip.refused %s", kv(why=why))
            self._refused(why)
