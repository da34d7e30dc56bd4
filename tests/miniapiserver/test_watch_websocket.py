"""A watch over WebSocket is one text message per event."""

from pathlib import Path

import aiohttp
import orjson
from filters_server import ADMIN, CONFIGMAPS, serving


async def test_events_arrive_as_text_messages_and_the_end_as_a_close(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}{CONFIGMAPS}?watch=true&fieldSelector=metadata.name%3Dseen&timeoutSeconds=2"
        async with server.session.ws_connect(url, headers={"Authorization": f"Bearer {ADMIN}"}) as socket:
            made = await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "seen"}})
            assert made.code == 201
            event = orjson.loads(await socket.receive_str(timeout=5))
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "seen")
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
