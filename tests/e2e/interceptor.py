"""A man in the middle: a process of its own, with a certificate authority of its own.

    python interceptor.py UPSTREAM-HOST UPSTREAM-PORT OUT-DIR

Listens on a loopback port, shows a certificate for every name the real server has, made by a CA nobody trusts, and
passes on whatever a victim says, reading along. Writes `port`, `ca.crt`, and one line per event to `events`:
`connection`, `handshake` (a victim believed us) and `read <what it said>`.
"""

import asyncio
import contextlib
import json
import ssl
import sys
from pathlib import Path

import trustme

NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc", "konnectivity-server")


class Interceptor:
    def __init__(self, host: str, port: int, out: Path) -> None:
        self.host, self.port, self.out = host, port, out
        self.events = (out / "events").open("w", buffering=1)
        authority = trustme.CA(organization_name="Somebody in between")
        authority.cert_pem.write_to_path(str(out / "ca.crt"))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        authority.issue_cert(*NAMES, host).configure_cert(self.context)
        self.onward = ssl.create_default_context()
        self.onward.check_hostname, self.onward.verify_mode = False, ssl.CERT_NONE

    def say(self, event: str, **facts: str) -> None:
        self.events.write(json.dumps({"event": event} | facts) + "\n")

    async def serve(self) -> None:
        server = await asyncio.start_server(self.meet, "127.0.0.1", 0)
        (self.out / "port.new").write_text(str(server.sockets[0].getsockname()[1]))
        (self.out / "port.new").rename(self.out / "port")
        await server.serve_forever()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.say("connection")
        try:
            await writer.start_tls(self.context)
            self.say("handshake")
            self.onward.set_alpn_protocols([writer.get_extra_info("ssl_object").selected_alpn_protocol() or "http/1.1"])
            their_reader, their_writer = await asyncio.open_connection(self.host, self.port, ssl=self.onward)
            async with asyncio.TaskGroup() as both:
                both.create_task(self.pass_on(reader, their_writer, "victim"))
                both.create_task(self.pass_on(their_reader, writer, "server"))
        except (OSError, ssl.SSLError, ExceptionGroup) as error:
            self.say("end", why=str(error))
        finally:
            with contextlib.suppress(OSError, ssl.SSLError):
                writer.close()

    async def pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, who: str) -> None:
        while data := await source.read(65536):
            self.say("read", who=who, text=data.decode("latin-1"))
            sink.write(data)
            await sink.drain()
        sink.close()


if __name__ == "__main__":
    asyncio.run(Interceptor(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])).serve())
