"""The direct path: plain TCP from the API server to the node."""

import socket

from wire.net import dial_tcp


class Direct:
    """Dials by itself. Holds nothing."""

    name = "direct"

    async def dial(self, host: str, port: int) -> socket.socket:
        return await dial_tcp(host, port)

    async def aclose(self) -> None:
        return None
