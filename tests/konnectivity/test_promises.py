"""What our two ends promise and upstream's protocol cannot do: our server, our agent, real sockets."""

import asyncio
import os
import socket

import pytest

from tests.konnectivity.conftest import Client, Plane, connect, echo, target, until

OK = b"HTTP/1.1 200 Connection Established\r\n\r\n"


async def test_a_connection_carries_bytes_both_ways(plane: Plane) -> None:
    async with target(echo) as port:
        client = await plane.connect(port)
        assert client.answer == OK
        client.writer.write(b"hello")
        assert await client.reader.readexactly(5) == b"hello"
        await client.aclose()
    await until(lambda: plane.server.open_connections == 0)


async def test_bytes_sent_behind_the_connect_head_arrive(plane: Plane) -> None:
    async with target(echo) as port:
        reader, writer = await asyncio.open_unix_connection(plane.server.config.uds_name)
        writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nearly".encode())
        assert await reader.readexactly(len(OK) + 5) == OK + b"early"
        writer.close()


async def test_no_upload_is_truncated_when_the_client_closes_right_after_writing(plane: Plane) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(65536):
            total += len(data)
            await asyncio.sleep(0.001)
        got.put_nowait(total)

    sizes = [100_000, 1_000_000, 3_000_000] * 5
    async with target(slow) as port:
        for size in sizes:
            client = await plane.connect(port)
            client.writer.write(bytes(size))
            await client.writer.drain()
            await client.aclose()
            assert await asyncio.wait_for(got.get(), 10) == size


async def test_half_closed_exchanges_survive_20_of_20(plane: Plane) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()  # to EOF
        await asyncio.sleep(0.01)
        writer.write(b"OK %d" % len(data))

    async with target(count) as port:
        for _ in range(20):
            client = await plane.connect(port)
            client.writer.write(bytes(1000))
            client.writer.write_eof()
            assert await asyncio.wait_for(client.reader.read(), 5) == b"OK 1000"
            await client.aclose()
    await until(lambda: plane.server.open_connections == 0 and plane.agent.sync.connections == 0)


async def test_the_targets_half_close_leaves_the_upload_open(plane: Plane) -> None:
    async def answer_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        writer.write_eof()
        got.set_result(await reader.read())

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with target(answer_first) as port:
        client = await plane.connect(port)
        assert await client.reader.read() == b"answer"
        client.writer.write(b"question")
        await client.aclose()
        assert await asyncio.wait_for(got, 5) == b"question"


def read_greeting(path: str, port: int) -> bytes:
    """As kube-apiserver: whatever comes in one read with the answer's head is an error."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = sock.recv(4096)
        if head != OK:
            return b"behind the answer: " + head
        return sock.recv(100)


async def test_no_greeting_comes_before_or_with_the_answer_0_of_300(plane: Plane) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x")
        await reader.read(1)

    async with target(greet) as port:
        path = plane.server.config.uds_name
        for _ in range(30):
            tries = (asyncio.to_thread(read_greeting, path, port) for _ in range(10))
            assert set(await asyncio.gather(*tries)) == {b"SSH-2.0-x"}


async def test_a_greeting_and_the_end_behind_it_arrive_in_order(plane: Plane) -> None:
    async def greet_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye" * 1000)

    async with target(greet_and_leave) as port:
        client = await plane.connect(port)
        assert await asyncio.wait_for(client.reader.read(), 5) == b"bye" * 1000
        await client.aclose()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def swallow_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    await asyncio.sleep(30)


async def stall_reader(plane: Plane, port: int) -> Client:
    client = await plane.connect(port)
    transport = client.writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    return client


async def stall_writer(plane: Plane, port: int) -> Client:
    client = await plane.connect(port)
    client.writer.write(bytes(32 << 20))
    return client


@pytest.mark.parametrize("who", ["reader", "target"])
async def test_one_that_stalls_stops_no_neighbour(plane: Plane, who: str) -> None:
    handler, stall = {"reader": (pour, stall_reader), "target": (swallow_nothing, stall_writer)}[who]
    async with target(handler) as stuck, target(echo) as lively:
        neighbour = await plane.connect(lively)
        stalled = [await stall(plane, stuck) for _ in range(3)]
        await asyncio.sleep(0.5)
        neighbour.writer.write(b"still here?")
        assert await asyncio.wait_for(neighbour.reader.readexactly(11), 2) == b"still here?"
        fresh = await asyncio.wait_for(plane.connect(lively), 2)
        fresh.writer.write(b"x")
        assert await asyncio.wait_for(fresh.reader.readexactly(1), 2) == b"x"
        # What the stalled ones hold is bounded: credit in the tunnel, marks on the sockets.
        legs = next(iter(plane.agent.sync.links.values())).link.legs.values()  # type: ignore[union-attr]
        assert all(leg.buffered + leg.peer.buffered < 2 << 20 for leg in legs)
        for client in (*stalled, neighbour, fresh):
            client.writer.transport.abort()
    await until(lambda: plane.agent.sync.connections == 0)


async def test_bulk_arrives_unchanged_beside_other_bulk(plane: Plane) -> None:
    blob = os.urandom(5 << 20)

    async def once(port: int) -> bool:
        client = await plane.connect(port)

        async def send() -> None:
            client.writer.write(blob)
            await client.writer.drain()
            client.writer.write_eof()

        sending = asyncio.create_task(send())
        got = await client.reader.read()
        await sending
        await client.aclose()
        return got == blob

    async with target(echo) as port:
        assert await asyncio.gather(*(once(port) for _ in range(4))) == [True] * 4


@pytest.mark.parametrize(
    ("address", "status", "kind"),
    [
        ("127.0.0.1:1", 502, "DialRefused"),
        ("no-such-host.invalid:80", 502, "DialUnreachable"),
        ("255.255.255.255:9", 502, "DialUnreachable"),
    ],
)
async def test_failed_dials_keep_their_type(plane: Plane, address: str, status: int, kind: str) -> None:
    client = await connect(plane.server.config.uds_name, address)
    assert client.answer.startswith(b"HTTP/1.1 %d " % status)
    assert f"Konnectivity-Error: {kind}\r\n".encode() in client.answer
    assert address.encode().split(b":")[0] in await client.reader.read()
    await client.aclose()


async def test_a_target_that_resets_is_not_an_orderly_end(plane: Plane) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    seen: list[str] = []
    async with target(reset) as port:
        client = await plane.connect(port)
        (front,) = plane.server.connect.fronts
        abort = front.abort

        def note(reason: str) -> None:
            seen.append(reason)
            abort(reason)

        front.abort = note  # type: ignore[method-assign]
        client.writer.write(b"x")
        await asyncio.wait_for(client.reader.read(), 5)
        await client.aclose()
    assert "reset" in seen[0]


async def test_a_client_that_left_is_not_kept_for_ever_by_a_target_that_takes_nothing(
    plane: Plane,
) -> None:
    plane.server.connect.stalls.timeout = 0.1
    async with target(swallow_nothing) as port:
        client = await stall_writer(plane, port)
        await asyncio.sleep(0.3)
        assert plane.server.open_connections == 1, "a client that is there may wait"
        client.writer.transport.abort()
        await until(lambda: plane.server.open_connections == 0)
        await until(lambda: plane.agent.sync.connections == 0)


async def test_a_close_is_told_to_the_target_although_nothing_follows(plane: Plane) -> None:
    """Closes wait a moment for company; a lone one may not wait for ever."""
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"last words"
        ended.set()

    async with target(listen) as port:
        client = await plane.connect(port)
        client.writer.write(b"last words")
        await client.aclose()
        async with asyncio.timeout(2):
            await ended.wait()
        await until(lambda: not plane.agent.sync.connections and not any(b.load for b in plane.server.backends), 2)
