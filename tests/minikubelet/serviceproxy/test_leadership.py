"""Which proxy of a machine listens."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest

from minikubelet.clock import Clock
from minikubelet.serviceproxy.leadership import Leader, Member, lead


@pytest.fixture(autouse=True)
async def in_time() -> AsyncIterator[None]:
    async with asyncio.timeout(10):
        yield


class Kubelet:
    """A node's proxy that wants to lead."""

    def __init__(self, scope: str, number: int) -> None:
        self.leads = asyncio.Event()
        self.leader: Leader | None = None
        self.changed = asyncio.Event()
        self._scope, self._member = scope, Member(f"node-{number}", f"127.0.10.{number}")
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with lead(self._scope, self._member, Clock()) as self.leader:
            self.leader.changed = self.changed.set
            self.leads.set()
            await asyncio.Event().wait()

    async def die(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


def scope() -> str:
    return uuid.uuid4().hex


async def test_one_leads_and_knows_the_nodes_that_follow() -> None:
    where = scope()
    first = Kubelet(where, 1)
    await first.leads.wait()
    second = Kubelet(where, 2)
    await first.changed.wait()
    assert first.leader is not None
    assert first.leader.nodes == {"node-1": "127.0.10.1", "node-2": "127.0.10.2"}
    assert not second.leads.is_set()
    first.changed.clear()
    await second.die()
    await first.changed.wait()
    assert first.leader.nodes == {"node-1": "127.0.10.1"}
    await first.die()


async def test_when_the_leader_dies_exactly_one_follower_leads_and_the_others_follow_it() -> None:
    where = scope()
    first = Kubelet(where, 1)
    await first.leads.wait()
    others = [Kubelet(where, number) for number in (2, 3, 4)]
    assert first.leader is not None
    while len(first.leader.nodes) < 4:
        await first.changed.wait()
        first.changed.clear()
    await first.die()
    await asyncio.wait([asyncio.create_task(other.leads.wait()) for other in others],
                       return_when=asyncio.FIRST_COMPLETED)
    [new] = [other for other in others if other.leads.is_set()]
    assert new.leader is not None
    while len(new.leader.nodes) < 3:
        await new.changed.wait()
        new.changed.clear()
    assert [other.leads.is_set() for other in others].count(True) == 1
    for other in others:
        await other.die()


async def test_two_clusters_have_two_leads() -> None:
    first, second = Kubelet(scope(), 1), Kubelet(scope(), 1)
    await asyncio.gather(first.leads.wait(), second.leads.wait())
    await first.die()
    await second.die()


async def test_a_proxy_that_cannot_serve_leaves_the_lead_to_one_that_can() -> None:
    async def never() -> bool:
        return False

    where = scope()

    async def follow_only() -> None:
        async with lead(where, Member("node-1", "127.0.10.1"), Clock(), never):
            raise AssertionError("it leads")

    unable = asyncio.create_task(follow_only())
    await asyncio.sleep(0)
    able = Kubelet(where, 2)
    await able.leads.wait()
    await able.changed.wait()
    assert able.leader is not None
    assert able.leader.nodes == {"node-1": "127.0.10.1", "node-2": "127.0.10.2"}
    await able.die()
    unable.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await unable


@pytest.mark.parametrize("line", [b"no json\n", b"[]\n", b"{}\n", b"x" * 10_000])
async def test_a_follower_that_talks_nonsense_is_nobody(line: bytes) -> None:
    where = scope()
    first = Kubelet(where, 1)
    await first.leads.wait()
    reader, writer = await asyncio.open_unix_connection(f"\0miniplane/serviceproxy/{where}")
    writer.write(line)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read(1) == b""
    writer.close()
    assert first.leader is not None
    assert first.leader.nodes == {"node-1": "127.0.10.1"}
    await first.die()
