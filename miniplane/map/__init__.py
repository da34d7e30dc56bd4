"""`miniplane map`: a live picture of the cluster's connections, in a browser on this machine.

My job: the command. `server` serves, `feed` follows the ledgers, `map.html` draws.
"""

import asyncio
import contextlib
import sys
import webbrowser

from miniplane.state import StateDir


def serve_map(state: StateDir, port: int, *, opens_browser: bool) -> int:
    state.require_record()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(state, port, opens_browser))
    return 0


async def _serve(state: StateDir, port: int, opens_browser: bool) -> None:
    from miniplane.map.server import MapServer

    async with MapServer(state, port) as server:
        print(server.url, flush=True)
        print("only this machine, and only who has this address; Ctrl-C ends it", file=sys.stderr)
        if opens_browser:
            await asyncio.to_thread(webbrowser.open, server.url)
        await asyncio.Event().wait()
