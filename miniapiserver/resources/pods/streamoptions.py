"""Options of `pods/exec`, `pods/attach` and `pods/portforward`.

My job: PodExecOptions, PodAttachOptions and PodPortForwardOptions from a query, and the query the kubelet is asked
with. A command that is missing is the kubelet's to refuse, as upstream.
"""

from dataclasses import dataclass

from miniapiserver.errors import BadRequest
from miniapiserver.resources.pods.queryvalues import Query, bool_value, text_value


@dataclass(frozen=True, slots=True)
class StreamOptions:
    container: str = ""
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False
    command: tuple[str, ...] = ()


def parse_stream_options(query: Query) -> StreamOptions:
    return StreamOptions(text_value(query, "container"), bool_value(query, "stdin"), bool_value(query, "stdout"),
                         bool_value(query, "stderr"), bool_value(query, "tty"), tuple(query.get("command") or ()))


def kubelet_stream_query(options: StreamOptions) -> list[tuple[str, str]]:
    """The kubelet's names for the streams, with `1` for yes."""
    flags = (("input", options.stdin), ("output", options.stdout), ("error", options.stderr), ("tty", options.tty))
    return [(name, "1") for name, wanted in flags if wanted] + [("command", word) for word in options.command]


def parse_ports(query: Query) -> tuple[int, ...]:
    """`ports=80,443&ports=8080` of a WebSocket port-forward. Raises BadRequest."""
    ports: list[int] = []
    for text in ",".join(query.get("ports") or ()).split(","):
        if not text:
            continue
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
            raise BadRequest(f'unable to parse "{text}" as a port')
        ports.append(int(text))
    return tuple(ports)
