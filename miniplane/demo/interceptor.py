"""`python -m miniplane.demo.interceptor`: whoever sits on the network between the API server and a node.

A process of its own with a certificate authority of its own. It has the node's address (or a pod's), and either passes
packets on, as a network should, or answers itself: it shows a certificate that it made for that address, asks for
the client's, and carries what is said on to the real endpoint, over a connection of its own.

My job: connections. Commands come as lines on stdin (`attack`, `pass`, `mark N`; the end of stdin ends me), what I
learn goes as JSON lines to stdout. I have nobody's keys: my CA is made when I start, and I know of the cluster only its
public root certificate, so that I can ask for certificates signed by it.
"""

import argparse
import asyncio
import ipaddress
import json
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trustme

from miniplane.demo.wiretap import Overheard, Wiretap, tap_for
from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.net import dial_tcp, join_host_port
from wire.protocol.http1 import MAX_HEAD, BodyReader, Head, framing, parse_head
from wire.relay import relay
from wire.stream import Stream, open_stream
from wire.tls import client_context

NAME: Final = "Mallory's certificate authority"
BACKLOG: Final = 128
HANDSHAKE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """What this attacker was told."""

    listen: tuple[str, int]
    upstream: tuple[str, int]
    is_plain: bool
    cluster_ca: str | None
    typed: bytes
    replace: tuple[bytes, bytes] | None
    needle: bytes = b""
    divert: tuple[str, int] | None = None


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Interceptor:
    """Owns the listener and every connection through it. Lives as long as the process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._attacks = False
        self._passing: set[Stream] = set()
        self._listens_with: ssl.SSLContext | None = None
        self._dials_with = None if task.is_plain else client_context(None, verify=False)

    async def run(self) -> None:
        with socket.create_server(self._task.listen, backlog=BACKLOG) as listener:
            listener.setblocking(False)
            say("listening", address=join_host_port(*self._task.listen))
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(listener, group), name="accept")
                await self._obey()
                accepting.cancel()
                raise _Done

    async def _obey(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().split():
            match line:
                case ["attack"]:
                    self._attacks = True
                    # Who takes an address takes its connections: they break, and the next ones are its own.
                    for stream in self._passing:
                        stream.abort()
                    if not self._task.is_plain:
                        self._listens_with = forged_context(self._task.listen[0], self._task.cluster_ca)
                case ["pass"]:
                    self._attacks = False
            say("mark", words=line)

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            serve = self._pass if not self._attacks else self._divert if self._task.divert else self._attack
            group.create_task(_contained(serve, accepted), name="connection")

    async def _pass(self, accepted: socket.socket) -> None:
        """What a network does. With a needle, also what anybody on it can do: look at the bytes."""
        near = await open_stream(accepted)
        self._passing.add(near)
        try:
            far = await open_stream(await dial_tcp(*self._task.upstream))
            try:
                if self._task.needle:
                    await asyncio.wait(
                        [asyncio.create_task(self._watch(near, far)), asyncio.create_task(self._watch(far, near))],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                else:
                    await relay(near, far)
            finally:
                far.abort()
        finally:
            self._passing.discard(near)
            near.abort()

    async def _divert(self, accepted: socket.socket) -> None:
        """Not my protocol: the packets go to another server of mine."""
        say("connection")
        assert self._task.divert is not None
        near = await open_stream(accepted)
        try:
            far = await open_stream(await dial_tcp(*self._task.divert))
            result = await relay(near, far)
            far.abort()
            say("diverted", bytes=result.a_to_b + result.b_to_a)
        finally:
            near.abort()

    async def _watch(self, source: Stream, sink: Stream) -> None:
        needle, kept = self._task.needle, b""
        while data := await source.read():
            seen = kept + data
            say("sniffed", bytes=len(data), found=seen.count(needle))
            kept = seen[-len(needle) + 1 :] if len(needle) > 1 else b""
            sink.write(data)
            await sink.drain()

    async def _attack(self, accepted: socket.socket) -> None:
        say("connection")
        victim = Stream()
        try:
            patience = HANDSHAKE if self._listens_with else None
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: victim, accepted, ssl=self._listens_with, ssl_handshake_timeout=patience
            )
        except (OSError, ssl.SSLError) as error:
            accepted.close()
            say("refused", reason=getattr(error, "reason", None) or str(error) or "it hung up")
            return
        try:
            _say_certificate(victim)
            sock = await dial_tcp(*self._task.upstream)
            node = await open_stream(sock, ssl=self._dials_with, server_hostname=self._task.upstream[0])
            try:
                while await self._exchange(victim, node):
                    pass
            finally:
                node.abort()
        finally:
            victim.abort()

    async def _exchange(self, victim: Stream, node: Stream) -> bool:
        """One request and its answer; whether another may follow."""
        raw = await victim.read_until(b"\r\n\r\n", MAX_HEAD)
        line, _, headers = raw.partition(b"\r\n")
        request = parse_head(b"HTTP/1.1 200 OK\r\n" + headers)
        method, target = line.decode("latin-1").split(" ")[:2]
        say("request", method=method, target=target, credential=bool(request.get("authorization")))
        node.write(raw)
        length = int(request.get("content-length") or 0)
        while length:
            data = await victim.read(min(length, 65536))
            if not data:
                return False
            self._read("request", data)
            node.write(data)
            length -= len(data)
        head = await node.read_until(b"\r\n\r\n", MAX_HEAD)
        answer = parse_head(head)
        victim.write(head)
        if answer.status == 101:
            await self._upgraded(victim, node, tap_for(request))
            return False
        return await self._body(victim, node, method, answer)

    async def _body(self, victim: Stream, node: Stream, method: str, answer: Head) -> bool:
        body = BodyReader(*framing(method, answer))
        while not body.done:
            data = await node.read()
            if not data:
                break
            for piece in body.feed(data):
                self._read("response", piece)
            victim.write(self._forged(data))
            await victim.drain()
        return body.done and answer.keeps_alive

    def _forged(self, data: bytes) -> bytes:
        if self._task.replace is None:
            return data
        old, new = self._task.replace
        if old in data:
            say("forged", old=old.decode(), new=new.decode())
        return data.replace(old, new)

    async def _upgraded(self, victim: Stream, node: Stream, tap: Wiretap) -> None:
        pumps = (
            asyncio.create_task(self._pump(victim, node, tap.from_client, tap), name="client to node"),
            asyncio.create_task(self._pump(node, victim, tap.from_node, None), name="node to client"),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await victim.drain()
            victim.close_soon()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, source: Stream, sink: Stream, listen: Callable[[bytes], list[Overheard]], typing_into: Wiretap | None
    ) -> None:
        while data := await source.read():
            # Before the client's first words: behind them its stdin may end.
            extra = typing_into.typed(self._task.typed) if typing_into is not None and self._task.typed else None
            heard = listen(data)
            for one in heard:
                self._read(one.stream, one.data)
            if extra is not None and any(one.stream == "stdin" for one in heard):
                sink.write(extra)
                say("typed", text=self._task.typed.decode())
                typing_into = None
            sink.write(data)
            await sink.drain()

    def _read(self, stream: str, data: bytes) -> None:
        say("read", stream=stream, bytes=len(data), text=data.decode("utf-8", "replace"))


class _Done(Exception):
    """Ends the task group with everything in it."""


async def _contained(serve: Callable[[socket.socket], Any], accepted: socket.socket) -> None:
    """One connection's trouble is not the attacker's end."""
    try:
        await serve(accepted)
    except (ConnectionLost, ConnectionError):
        pass
    except (WireError, PeerProtocolError, OSError, ValueError) as error:
        say("trouble", what=str(error))


def _say_certificate(victim: Stream) -> None:
    tls = victim.get_extra_info("ssl_object")
    if tls is None:
        return
    subject = {key: value for row in (tls.getpeercert() or {}).get("subject", ()) for key, value in row}
    say("handshake", version=tls.version(), client=subject.get("commonName"))


def forged_context(address: str, cluster_ca: str | None) -> ssl.SSLContext:
    """A server certificate for somebody else's address, and the wish to see who calls."""
    authority = trustme.CA(organization_name=NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(address, organization_name=NAME).configure_cert(context)
    if cluster_ca is not None:
        context.load_verify_locations(cluster_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not IP:PORT") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="miniplane.demo.interceptor", description="a man in the middle, for the lab")
    parser.add_argument("--listen", type=_address, required=True, metavar="IP:PORT", help="the address it takes")
    parser.add_argument("--upstream", type=_address, required=True, metavar="IP:PORT", help="who really answers there")
    parser.add_argument("--plain", action="store_true", help="HTTP without TLS")
    parser.add_argument("--cluster-ca", metavar="FILE", help="the cluster's public root, to ask for certificates")
    parser.add_argument("--type", default="", metavar="TEXT", help="what to type into a shell it sees")
    parser.add_argument("--replace", nargs=2, metavar=("OLD", "NEW"), help="what to change in answers (same length)")
    parser.add_argument("--divert", type=_address, metavar="IP:PORT", help="attack by sending callers there instead")
    parser.add_argument("--look-for", default="", metavar="TEXT", help="while passing packets on: how often it is seen")
    options = parser.parse_args()
    replace = (options.replace[0].encode(), options.replace[1].encode()) if options.replace else None
    if replace is not None and len(replace[0]) != len(replace[1]):
        parser.error("--replace: the two must be equally long")
    task = Task(
        listen=options.listen, upstream=options.upstream, is_plain=options.plain, cluster_ca=options.cluster_ca,
        typed=options.type.encode(), replace=replace, needle=options.look_for.encode(),
        divert=options.divert,
    )  # fmt: skip
    try:
        asyncio.run(_until_done(Interceptor(task)))
    except OSError as error:
        print(f"interceptor: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_done(interceptor: Interceptor) -> None:
    try:
        await interceptor.run()
    except* _Done:
        pass


if __name__ == "__main__":
    sys.exit(main())
