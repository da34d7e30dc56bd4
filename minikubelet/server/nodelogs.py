"""/logs/: the node's log folder, read-only.

My job: files and listings below one folder, as Go's file server answers. I own an open file for the length of an
answer. Rule: no path leaves the folder: every component is opened without following links.
"""

import asyncio
import html
import os
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from minikubelet.logs.reader import open_beneath
from minikubelet.server.answers import HTTPError

BLOCK = 256 * 1024


async def node_logs(request: web.BaseRequest, folder: Path) -> web.StreamResponse:
    relative = request.path.removeprefix("/logs").strip("/")
    parts = [part for part in relative.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise HTTPError(400, "invalid URL path\n")
    target = folder.joinpath(*parts)
    if any(folder.joinpath(*parts[:length]).is_symlink() for length in range(1, len(parts) + 1)):
        raise HTTPError(404, "404 page not found\n")
    if target.is_dir():
        return await asyncio.to_thread(_listing, target)
    return await _file(request, folder, "/".join(parts))


def _listing(folder: Path) -> web.Response:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    lines = [f'<a href="{quote(name)}">{html.escape(name)}</a>' for name in names]
    page = '<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n' + "\n".join(lines)
    return web.Response(text=page + "\n</pre>\n", content_type="text/html", charset="utf-8")


async def _file(request: web.BaseRequest, folder: Path, relative: str) -> web.StreamResponse:
    try:
        descriptor = open_beneath(folder, relative)
    except OSError:
        raise HTTPError(404, "404 page not found\n") from None
    try:
        size = os.fstat(descriptor).st_size
        answer = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        answer.content_length = size
        await answer.prepare(request)
        position = 0
        while position < size and (data := os.pread(descriptor, min(BLOCK, size - position), position)):
            position += len(data)
            await answer.write(data)
        await answer.write_eof()
        return answer
    finally:
        os.close(descriptor)
