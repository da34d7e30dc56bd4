"""The built-in image `miniplane.local/echo`: answers every HTTP request with what it was asked.

My job: a peer for port-forward, services and proxies. A program of its own, run as a file by a bare interpreter; it
imports nothing of this project. Binds the pod's address ($POD_IP or what the host name resolves to), so that several
can use the same port on one machine.
"""

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 10 << 20


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.send_error(413)
            return
        body = self.rfile.read(length).decode(errors="replace")
        seen = {
            "pod": os.environ.get("HOSTNAME", socket.gethostname()),
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers.items()),
            "body": body,
            "client": "{}:{}".format(*self.client_address[:2]),
        }
        data = json.dumps(seen, indent=2).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, format: str, *args: object) -> None:
        sys.stdout.write(f"{self.address_string()} {format % args}\n")
        sys.stdout.flush()


def address() -> str:
    try:
        return os.environ.get("POD_IP") or socket.gethostbyname(socket.gethostname())
    except OSError:
        return "0.0.0.0"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    arguments = sys.argv[1:]
    port = int(arguments[0]) if arguments else int(os.environ.get("PORT", "8080"))
    server = ThreadingHTTPServer((address(), port), Echo)
    sys.stdout.write(f"listening on {server.server_address[0]!s}:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
