"""Real sockets through the user-space proxy."""

import asyncio
import contextlib
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from minikubelet.clock import Clock
from minikubelet.serviceproxy.affinity import Balancer
from minikubelet.serviceproxy.frontends import Address, Entrance, Frontend
from minikubelet.serviceproxy.serviceports import Endpoint, ServicePortName
from minikubelet.serviceproxy.userspace import UserspaceProxy, bind
from wire.connections import Ledger

WEB = ServicePortName("default", "web", "")
VIP = "127.96.250.1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]


@pytest.fixture
async def proxy() -> AsyncIterator[UserspaceProxy]:
    async with asyncio.timeout(20), UserspaceProxy(Balancer(random.Random(7)), Clock(), Ledger()) as made:
        yield made


@contextlib.asynccontextmanager
async def serving(answer: Serve, host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    server = await asyncio.start_server(answer, host, 0)
    try:
        yield Endpoint(host, server.sockets[0].getsockname()[1])
    finally:
        server.close()


def saying(text: bytes) -> Serve:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()
        await writer.wait_closed()

    return answer


async def echo_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(-1))  # only answers once the client has ended its half
    writer.close()
    await writer.wait_closed()


def free_port() -> int:
    with bind((VIP, 0)) as sock:
        return int(sock.getsockname()[1])


def nobody() -> Endpoint:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Endpoint("127.0.0.1", sock.getsockname()[1])


def front(*endpoints: Endpoint, affinity: int | None = None) -> Frontend:
    return Frontend(WEB, Entrance.CLUSTER_IP, endpoints, affinity)


async def ask(address: Address, sent: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(sent)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()


async def come_true(condition: Callable[[], bool]) -> None:
    """Turn by turn of the loop: what is waited for tells nobody."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


async def ask_in_vain(address: Address) -> None:
    reader, writer = await asyncio.open_connection(*address)
    try:
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
    finally:
        writer.close()


async def test_connections_spread_over_the_endpoints(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(saying(b"a")) as a, serving(saying(b"b")) as b, serving(saying(b"c")) as c:
        assert proxy.apply({address: front(a, b, c)}) == {}
        assert {await ask(address) for _ in range(40)} == {b"a", b"b", b"c"}


async def test_a_client_with_affinity_stays(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(saying(b"a")) as a, serving(saying(b"b")) as b, serving(saying(b"c")) as c:
        proxy.apply({address: front(a, b, c, affinity=60)})
        assert len({await ask(address) for _ in range(20)}) == 1


async def test_endpoints_that_do_not_answer_are_passed_over(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(saying(b"a")) as a:
        proxy.apply({address: front(nobody(), a, nobody())})
        assert [await ask(address) for _ in range(10)] == [b"a"] * 10


async def test_a_client_with_affinity_goes_to_another_when_its_endpoint_has_died(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(saying(b"b")) as b:
        async with serving(saying(b"a")) as a:
            proxy.apply({address: front(a, affinity=60)})
            assert await ask(address) == b"a"
        proxy.apply({address: front(a, b, affinity=60)})
        assert [await ask(address) for _ in range(3)] == [b"b"] * 3


async def test_a_client_nobody_answers_is_reset_not_ended(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    proxy.apply({address: front(nobody())})
    await ask_in_vain(address)
    assert proxy.figures.unanswered == 1


async def test_without_endpoints_the_kernel_refuses(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(saying(b"a")) as a:
        proxy.apply({address: front(a)})
        assert await ask(address) == b"a"
        proxy.apply({})
        with pytest.raises(ConnectionRefusedError):
            await ask(address)
        proxy.apply({address: front(a)})
        assert await ask(address) == b"a"


async def test_the_end_of_one_direction_leaves_the_other_open(proxy: UserspaceProxy) -> None:
    address, sent = (VIP, free_port()), os.urandom(3_000_000)
    async with serving(echo_after_the_end) as a:
        proxy.apply({address: front(a)})
        assert await ask(address, sent) == sent
    assert (proxy.figures.bytes_in, proxy.figures.bytes_out) == (len(sent), len(sent))


async def test_a_reset_of_the_endpoint_reaches_the_client_as_a_reset(proxy: UserspaceProxy) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    address = (VIP, free_port())
    async with serving(break_off) as a:
        proxy.apply({address: front(a)})
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.readexactly(4) == b"half"
        writer.write(b"1")
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()


async def test_a_connection_outlives_the_rule_that_made_it(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    async with serving(echo_after_the_end) as a:
        proxy.apply({address: front(a)})
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"before ")
        await come_true(lambda: bool(proxy.figures.accepted))
        proxy.apply({})
        writer.write(b"after")
        writer.write_eof()
        assert await reader.read(-1) == b"before after"
        writer.close()


async def test_an_address_that_is_taken_is_told_and_the_others_are_served(proxy: UserspaceProxy) -> None:
    taken, other = (VIP, free_port()), (VIP, free_port())
    async with serving(saying(b"a")) as a:
        with bind(taken):
            failed = proxy.apply({taken: front(a), other: front(a)})
            assert {address: type(error) for address, error in failed.items()} == {taken: OSError}
            assert await ask(other) == b"a"
        assert proxy.apply({taken: front(a), other: front(a)}) == {}
        assert await ask(taken) == b"a"


async def test_a_service_that_names_itself_as_endpoint_is_no_circle(proxy: UserspaceProxy) -> None:
    address = (VIP, free_port())
    proxy.apply({address: front(Endpoint(*address))})
    await ask_in_vain(address)
    assert proxy.figures.accepted == 1


async def test_beyond_the_limit_clients_wait_and_are_then_served() -> None:
    address = (VIP, free_port())
    async with (asyncio.timeout(20), serving(echo_after_the_end) as a,
                UserspaceProxy(Balancer(random.Random(7)), Clock(), limit=2) as proxy):
        proxy.apply({address: front(a)})
        open_ones = [await asyncio.open_connection(*address) for _ in range(5)]
        await come_true(lambda: proxy.figures.accepted >= 2)
        await asyncio.sleep(0.05)  # a third would have been accepted by now
        assert (proxy.figures.open, proxy.figures.accepted) == (2, 2)
        for number, (_, writer) in enumerate(open_ones):
            writer.write(b"%d" % number)
            writer.write_eof()
        assert [await reader.read(-1) for reader, _ in open_ones] == [b"0", b"1", b"2", b"3", b"4"]
        for _, writer in open_ones:
            writer.close()


async def test_the_ledger_says_who_came_to_the_api_server_and_keeps_quiet_about_the_rest() -> None:
    ledger, address, other = Ledger(), (VIP, free_port()), (VIP, free_port())
    async with (serving(saying(b"a")) as a, UserspaceProxy(Balancer(random.Random(7)), Clock(), ledger) as proxy):
        kubernetes = ServicePortName("default", "kubernetes", "https")
        proxy.apply({address: Frontend(kubernetes, Entrance.CLUSTER_IP, (a,)), other: front(a)})
        await ask(address)
        await ask(other)
        await come_true(lambda: not proxy.figures.open)
    [entry] = ledger.snapshot()
    assert (entry["from"], entry["to"], entry["purpose"], entry["state"], entry["bytesIn"]) == (
        "127.0.0.1", f"127.0.0.1:{a.port}", "service default/kubernetes:https", "closed", 1)


async def test_the_end_of_the_proxy_ends_its_connections() -> None:
    address = (VIP, free_port())
    async with serving(echo_after_the_end) as a:
        async with UserspaceProxy(Balancer(random.Random(7)), Clock()) as proxy:
            proxy.apply({address: front(a)})
            reader, writer = await asyncio.open_connection(*address)
            await come_true(lambda: bool(proxy.figures.accepted))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await ask(address)
