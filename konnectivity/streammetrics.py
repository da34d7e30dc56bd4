"""What passes over the streams, counted under upstream's label values.

Job: `stream_packets_total` and `stream_errors_total` of either program. Neighbours: `link` and the gRPC front count
here, once for every packet. Rule: counting a packet is one addition in a dict; names are for `render` only.

Segments are seen from the server (`from_agent` is what an agent sends), in the agent's own metrics, too.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from konnectivity.metrics import Counter
from konnectivity.protocol.grpcevents import Status
from wire.protocol.konnectivity import (
    CloseDial,
    CloseRequest,
    CloseResponse,
    Credit,
    Data,
    DialRequest,
    DialResponse,
    Drain,
    EndOfFile,
    Reset,
    Unknown,
)

Tally = defaultdict[type, int]

PACKET_TYPES: dict[type, str] = {
    DialRequest: "DIAL_REQ",
    DialResponse: "DIAL_RSP",
    CloseRequest: "CLOSE_REQ",
    CloseResponse: "CLOSE_RSP",
    Data: "DATA",
    CloseDial: "DIAL_CLS",
    Drain: "DRAIN",
    EndOfFile: "EOF",
    Credit: "CREDIT",
    Reset: "RESET",
    Unknown: "UNKNOWN",
}
NO_PACKET = "Unknown"  # upstream's word for an error between packets
# As grpc-go spells the codes it makes itself.
_CODES: dict[int, str] = {
    Status.CANCELLED: "Canceled",
    Status.DEADLINE_EXCEEDED: "DeadlineExceeded",
    Status.RESOURCE_EXHAUSTED: "ResourceExhausted",
    Status.UNIMPLEMENTED: "Unimplemented",
    Status.INTERNAL: "Internal",
    Status.UNAVAILABLE: "Unavailable",
    Status.UNAUTHENTICATED: "Unauthenticated",
}


class PacketCounter(Counter):
    """Packets by segment and type."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Count of packets processed, by segment and packet type", ("segment", "packet_type"))
        self._tallies: dict[str, Tally] = {}

    def segment(self, name: str) -> Tally:
        """Counted in place: `tally[type(packet)] += 1`."""
        return self._tallies.setdefault(name, defaultdict(int))

    def render(self) -> list[str]:
        self.values = {
            (segment, PACKET_TYPES[kind]): count
            for segment, tally in self._tallies.items()
            for kind, count in tally.items()
        }
        return super().render()


@dataclass(frozen=True, slots=True)
class StreamMeter:
    """Where one stream counts. `count_end` gets the gRPC status of its end, -1 if its connection was lost."""

    received: Tally
    sent: Tally
    count_end: Callable[[int], None]


class StreamMetrics:
    """Both metrics of a program (`server` or `agent`). Lives as long as it."""

    def __init__(self, program: str) -> None:
        self.packets = PacketCounter(f"{program}_stream_packets_total")
        self.errors = Counter(
            f"{program}_stream_errors_total",
            "Count of gRPC stream errors, by segment, code and packet type",
            ("segment", "code", "packet_type"),
        )

    def meter(self, received: str, sent: str, lost: Status = Status.UNAVAILABLE) -> StreamMeter:
        """For streams whose peer sends on segment `received`; `lost` is the code of a lost connection."""

        def count_end(status: int) -> None:
            if status != Status.OK:
                self.errors.add(received, _CODES.get(lost if status < 0 else status, "Unknown"), NO_PACKET)

        return StreamMeter(self.packets.segment(received), self.packets.segment(sent), count_end)
