"""Which of a machine's kubelets listens on the virtual IPs.

Every node of the local profile shares one loopback device, where a VIP can be bound once. So one proxy leads and
listens for all nodes, the others stand by. Not SO_REUSEPORT: the kernel would deal each client's connections to
different processes, and session affinity, `Local` policies and the order of fail-over would be chance.

The lead is an abstract UNIX socket. It is one per network namespace, exactly as far as the loopback device goes (a
lock file would reach across namespaces), and it ends with its holder, however that dies. Followers keep a connection
to it: they tell the leader their node's name and address, and its end tells them that the lead is free. I own the
socket. Rule: we follow only someone with our own user id, or root.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import orjson

from minikubelet.clock import Clock
from minikubelet.logline import kv
from wire.errors import WireError
from wire.stream import Stream, open_stream

LINE_LIMIT = 4096
MAX_FOLLOWERS = 256
FOLLOW_AGAIN = 0.05
ABLE_AGAIN = 2.0
HEARD_WITHIN = 5.0

log = logging.getLogger(__name__)


MayLead = Callable[[], Awaitable[bool]]


async def anybody() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Member:
    """A node, as its proxy announces it."""

    node: str
    address: str


class Leader:
    """We lead. Lives until the `async with` around `lead` ends."""

    def __init__(self, ours: Member) -> None:
        self._ours = ours
        self._followers: dict[Stream, Member] = {}
        self.changed: Callable[[], None] = lambda: None

    @property
    def nodes(self) -> dict[str, str]:
        """Name → address of every node on this machine."""
        return {member.node: member.address for member in (*self._followers.values(), self._ours)}

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                accepted, _ = await loop.sock_accept(sock)
                if len(self._followers) >= MAX_FOLLOWERS or not _is_trusted(accepted):
                    accepted.close()
                    continue
                tasks.create_task(self._follower(await open_stream(accepted)), name="follower")

    async def _follower(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                line = await stream.read_until(b"\n", LINE_LIMIT)
            told = orjson.loads(line)
            member = Member(str(told["node"]), str(told["address"]))
            self._followers[stream] = member
            log.info("node.joined %s", kv(node=member.node, address=member.address))
            self.changed()
            while await stream.read():
                pass
        except (WireError, TimeoutError, ValueError, KeyError, TypeError):
            pass
        finally:
            if self._followers.pop(stream, None) is not None:
                self.changed()
            stream.abort()


@contextlib.asynccontextmanager
async def lead(scope: str, ours: Member, clock: Clock, may_lead: MayLead = anybody) -> AsyncIterator[Leader]:
    """Enters once we lead; until then we follow. `scope` names the cluster: two clusters have two leads.

    `may_lead` is asked before each attempt: a proxy that cannot serve leaves the lead to those that can.
    """
    sock = await _campaign(f"\0miniplane/serviceproxy/{scope}", ours, clock, may_lead)
    leader = Leader(ours)
    try:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(leader.listen(sock), name="followers")
            yield leader
            listening.cancel()
    finally:
        sock.close()


async def _campaign(name: str, ours: Member, clock: Clock, may_lead: MayLead) -> socket.socket:
    told = False
    while True:
        able = await may_lead()
        sock = _take(name) if able else None
        if sock is not None:
            log.info("lead.taken %s", kv(node=ours.node))
            return sock
        if not told:
            told = True
            log.info("lead.followed %s", kv(node=ours.node))
        await _follow(name, ours)
        # Everybody who followed comes now; and a socket that is bound but not ours to follow must not make us spin.
        await clock.sleep(random.uniform(0, FOLLOW_AGAIN) if able else ABLE_AGAIN)


def _take(name: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        sock.listen(MAX_FOLLOWERS)
    except OSError:
        sock.close()
        return None
    return sock


async def _follow(name: str, ours: Member) -> None:
    """Returns when the leader has gone."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, name)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            return
        raise
    if not _is_trusted(sock):
        sock.close()
        log.warning("lead.foreign %s", kv(why="another user holds this machine's service proxy socket"))
        await asyncio.sleep(HEARD_WITHIN)
        return
    stream = await open_stream(sock)
    try:
        stream.write(orjson.dumps({"node": ours.node, "address": ours.address}) + b"\n")
        while await stream.read():
            pass
    except WireError:
        pass
    finally:
        stream.abort()


def _is_trusted(sock: socket.socket) -> bool:
    _, uid, _ = struct.unpack("iii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())
