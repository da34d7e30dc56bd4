"""`python -m bench.api`: requests per CPU second of the API server with its storage, and watch fan-out.

The load comes over keep-alive TLS connections from this process; only the API server's CPU time counts, so that
neither this client nor a busy neighbour decides the figure.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from bench.cluster import Measured, cpu_seconds, running
from certs import kubeconfig
from miniplane.apiclient import tls_context

CONNECTIONS = 8
READS, WRITES, WATCHERS, CHANGES = 8000, 4000, 1000, 20
HEAD = "Host: bench\r\nAccept: application/json\r\nUser-Agent: bench\r\n"


class Load:
    """One API server under load."""

    def __init__(self, measured: Measured) -> None:
        self.pid = measured.pids()["miniapiserver"]
        self.context: ssl.SSLContext = tls_context(kubeconfig.load(measured.kubeconfig).credentials())
        url = urlsplit(measured.cluster.url)
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 443

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, ssl=self.context)

    async def many(self, name: str, total: int, request: Callable[[int], bytes], budget: int) -> None:
        numbers = iter(range(total))

        async def worker() -> None:
            reader, writer = await self.connect()
            for number in numbers:
                writer.write(request(number))
                await _answer(reader)
            writer.close()

        before, started = cpu_seconds(self.pid), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
        used, elapsed = cpu_seconds(self.pid) - before, time.perf_counter() - started
        print(f"{name}: {total / used:,.0f} per CPU second, {total / elapsed:,.0f} per second   (budget {budget:,})")

    async def fan_out(self) -> None:
        """WATCHERS watches of one collection, CHANGES changes, every watcher sees every change."""
        ready = asyncio.Semaphore(0)
        seen = [0] * WATCHERS

        async def watcher(index: int) -> None:
            reader, writer = await self.connect()
            writer.write(_get("/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dfan"))
            await reader.readuntil(b"\r\n\r\n")
            ready.release()
            while seen[index] < CHANGES:
                line = await reader.readuntil(b"}\n")
                seen[index] += line.count(b'"type":"')
            writer.close()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watcher(index), name=f"watcher {index}") for index in range(WATCHERS)]
            for _ in range(WATCHERS):
                await ready.acquire()
            before, started = cpu_seconds(self.pid), time.perf_counter()
            reader, writer = await self.connect()
            for number in range(CHANGES):
                body = _config_map("fan", number)
                head = (
                    _post("/api/v1/namespaces/default/configmaps", body)
                    if number == 0
                    else _put("/api/v1/namespaces/default/configmaps/fan", body)
                )
                writer.write(head)
                await _answer(reader)
            await asyncio.gather(*tasks)
            writer.close()
        used, elapsed = cpu_seconds(self.pid) - before, time.perf_counter() - started
        total = WATCHERS * CHANGES
        print(
            f"watch fan-out: {CHANGES} changes to {WATCHERS} watchers in {elapsed:.2f} s, "
            f"{total / used:,.0f} events per CPU second"
        )


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if head[9:10] != b"2":
        raise RuntimeError(f"{head.decode()}{body.decode()}")
    return body


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{HEAD}\r\n".encode()


def _with_body(method: str, path: str, body: bytes) -> bytes:
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"{method} {path} HTTP/1.1\r\n{HEAD}{more}".encode() + body


def _post(path: str, body: bytes) -> bytes:
    return _with_body("POST", path, body)


def _put(path: str, body: bytes) -> bytes:
    return _with_body("PUT", path, body)


def _config_map(name: str, number: int) -> bytes:
    return json.dumps(
        {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": name, "labels": {"bench": "yes"}},
            "data": {"number": str(number), "filler": "x" * 100},
        }
    ).encode()


async def _measure(measured: Measured) -> None:
    load = Load(measured)
    await load.many("GET", READS, lambda number: _get("/api/v1/namespaces/default"), 2000)
    await load.many("LIST of few objects", READS, lambda number: _get("/api/v1/namespaces"), 2000)
    await load.many(
        "CREATE",
        WRITES,
        lambda number: _post("/api/v1/namespaces/default/configmaps", _config_map(f"bench-{number}", number)),
        800,
    )
    await load.fan_out()


def main() -> None:
    with running() as measured:
        asyncio.run(_measure(measured))


if __name__ == "__main__":
    main()
