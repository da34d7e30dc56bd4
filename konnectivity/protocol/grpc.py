"""gRPC over one HTTP/2 connection, without I/O: bidirectional calls and their messages.

Job: bytes in, events out; messages in, bytes out. h2 keeps the rules of HTTP/2 (handshake, settings, header blocks,
stream states, outgoing windows); DATA, incoming windows and GOAWAY are handled here, for speed and because h2 calls a
connection closed at the first GOAWAY while gRPC lets open calls finish. Neighbours: `konnectivity.grpclink` moves the
bytes, `wire.protocol.konnectivity` reads the messages. No clock, no randomness.

Rule: whatever a peer sends, `receive` returns events or raises PeerProtocolError, and nothing else.

Windows: the connection's is reopened as bytes arrive, so no call can hold back another; a call's is reopened by
`acknowledge`, so who does not acknowledge stops exactly that call's sender.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from konnectivity.protocol import http2frames as frames
from konnectivity.protocol.grpccall import Call
from konnectivity.protocol.grpcevents import (
    CallAccepted,
    CallEnded,
    CallOpened,
    CallWritable,
    Event,
    GoingAway,
    Headers,
    Metadata,
    PingAcked,
    Status,
    header_pairs,
    parse_metadata,
    parse_verdict,
)
from wire.errors import PeerProtocolError
from wire.protocol.konnectivity import Buffer

PREFACE_LENGTH = 24
CONNECTION_WINDOW = 16 << 20
WORTH_OWN_WRITE = 4 << 10  # bytes; joining less is cheaper than another TLS record


class GRPCConnection:
    """One end of one HTTP/2 connection. Lives as long as the transport it is fed from."""

    def __init__(self, *, client: bool, call_window: int = 1 << 20, max_calls: int = 100) -> None:
        self._client = client
        self._call_window = call_window
        self._calls: dict[int, Call] = {}
        self._highest_call = 0
        self._connection_unacknowledged = 0
        self._connection_window = CONNECTION_WINDOW
        self._cutter = frames.FrameCutter()
        self._preface = b""
        self._preface_left = 0 if client else PREFACE_LENGTH
        self._output: list[Buffer] = []
        self._output_size = 0
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: call_window,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_calls,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: frames.MAX_FRAME,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 64 << 10,
            },
        )
        self._h2.max_inbound_frame_size = frames.MAX_FRAME
        self._h2.initiate_connection()
        self._collect()
        self._output.append(frames.window_update(0, CONNECTION_WINDOW - 65535))

    def __repr__(self) -> str:
        return f"<GRPCConnection {'client' if self._client else 'server'} calls={len(self._calls)}>"

    # ------------------------------------------------------------ receiving

    def receive(self, data: bytes) -> list[Event]:
        """What `data` means. On PeerProtocolError send what `take_output` has (a GOAWAY), then close."""
        events: list[Event] = []
        try:
            if self._preface_left:
                data = self._receive_preface(data)
            for frame in self._cutter.feed(data):
                if frame.type == frames.DATA:
                    self._receive_data(frame, events)
                elif frame.type == frames.GOAWAY:
                    events.append(GoingAway(*frames.parse_goaway(frame)))
                else:
                    self._give_to_h2(frame.raw, events)
        except (h2.exceptions.ProtocolError, PeerProtocolError) as error:
            self._collect()
            raise PeerProtocolError(f"http2: {error}") from error
        finally:
            self._collect()
        return events

    def _receive_preface(self, data: bytes) -> bytes:
        head, rest = data[: self._preface_left], data[self._preface_left :]
        self._preface_left -= len(head)
        self._preface += head
        if self._preface_left == 0:
            self._h2.receive_data(self._preface)
        return rest

    def _give_to_h2(self, raw: Buffer, events: list[Event]) -> None:
        for event in self._h2.receive_data(bytes(raw)):
            handler = _H2_EVENTS.get(type(event))
            if handler is not None:
                handler(self, event, events)

    def _receive_data(self, frame: frames.Frame, events: list[Event]) -> None:
        size = len(frame.payload)
        if size > self._connection_window:
            raise PeerProtocolError("more data than the connection's window")
        self._reopen_connection(size)
        call = self._calls.get(frame.stream)
        if call is None:
            if frame.stream == 0 or frame.stream > self._highest_call:
                raise PeerProtocolError(f"data for stream {frame.stream}, which was never opened")
            return  # late data of a call that has ended
        call.window -= size
        if call.window < 0:
            raise PeerProtocolError(f"more data than the window of stream {call.id}")
        content = frames.unpad(frame)
        if size != len(content):
            self.acknowledge(call.id, size - len(content))
        verdict = call.cut_messages(content, events)
        if verdict is not None:
            self.end_call(call.id, *verdict)
            events.append(CallEnded(call.id, *verdict))
        if frame.flags & frames.END_STREAM and call.id in self._calls:
            self._give_to_h2(frames.head(0, frames.DATA, frames.END_STREAM, call.id), events)

    # ------------------------------------------------------------ h2's events

    def _on_request(self, event: h2.events.RequestReceived, events: list[Event]) -> None:
        headers = event.headers or []
        call_id = event.stream_id or 0
        self._highest_call = max(self._highest_call, call_id)
        wanted = dict(headers)
        if wanted.get(b":method") != b"POST" or not wanted.get(b"content-type", b"").startswith(b"application/grpc"):
            self._h2.send_headers(call_id, [(b":status", b"415"), (b"content-length", b"0")], end_stream=True)
            return
        self._calls[call_id] = Call(call_id, self._call_window)
        path = wanted.get(b":path", b"").decode("latin-1")
        events.append(CallOpened(call_id, path, parse_metadata(headers)))

    def _on_response(self, event: h2.events.ResponseReceived, events: list[Event]) -> None:
        call = self._calls.get(event.stream_id or 0)
        headers = event.headers or []
        if call is None:
            return
        status = dict(headers).get(b":status", b"")
        metadata = parse_metadata(headers)
        if status != b"200":
            self.reset_call(call.id)
            events.append(CallEnded(call.id, Status.UNKNOWN, f"grpc: http status {status.decode('latin-1')}"))
        elif "grpc-status" in metadata:  # "trailers only": refused before it began
            self._forget(call.id)
            events.append(CallEnded(call.id, *parse_verdict(metadata)))
        else:
            events.append(CallAccepted(call.id, metadata))

    def _on_trailers(self, event: h2.events.TrailersReceived, events: list[Event]) -> None:
        if self._client and self._forget(event.stream_id or 0):
            events.append(CallEnded(event.stream_id or 0, *parse_verdict(parse_metadata(event.headers or []))))

    def _on_end(self, event: h2.events.StreamEnded, events: list[Event]) -> None:
        call = self._calls.get(event.stream_id or 0)
        if call is None:
            return
        if self._client:
            # An end without trailers is not gRPC; the call is over all the same.
            self._forget(call.id)
            events.append(CallEnded(call.id, Status.INTERNAL, "grpc: stream ended without a status"))
        else:
            events.append(CallEnded(call.id, Status.OK, ""))

    def _on_reset(self, event: h2.events.StreamReset, events: list[Event]) -> None:
        if self._forget(event.stream_id or 0):
            text = f"stream reset by peer (error {int(event.error_code or 0)})"
            events.append(CallEnded(event.stream_id or 0, Status.CANCELLED, text))

    def _on_window(self, event: h2.events.Event, events: list[Event]) -> None:
        for call in list(self._calls.values()):
            if call.outbound:
                self._pump(call)
                if not call.outbound:
                    events.append(CallWritable(call.id))

    def _on_ping_ack(self, event: h2.events.PingAckReceived, events: list[Event]) -> None:
        events.append(PingAcked(event.ping_data or b""))

    # ------------------------------------------------------------ calls

    def open_call(self, path: str, authority: str, metadata: Metadata) -> int:
        """Open a call (client role); its number. Messages may follow at once."""
        call_id: int = self._h2.get_next_available_stream_id()
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"miniplane-konnectivity"),
        ]
        self._h2.send_headers(call_id, headers + header_pairs(metadata))
        self._highest_call = call_id
        self._calls[call_id] = Call(call_id, self._call_window)
        self._collect()
        return call_id

    def accept_call(self, call_id: int, metadata: Metadata) -> None:
        """Send the initial metadata (server role). Real agents wait for it before anything else."""
        call = self._calls.get(call_id)
        if call is not None and not call.is_accepted:
            call.is_accepted = True
            self._h2.send_headers(call_id, [*_RESPONSE, *header_pairs(metadata)])
            self._collect()

    def send_message(self, call_id: int, *parts: Buffer) -> bool:
        """Send or queue one message given in parts; whether all of it could be written now."""
        call = self._calls.get(call_id)
        if call is None or call.ending is not None:
            return True
        length = sum(map(len, parts))
        if not call.outbound and self._write_at_once(call_id, length, parts):
            return True
        call.queue(length, parts)
        self._pump(call)
        return not call.outbound

    def _write_at_once(self, call_id: int, length: int, parts: Sequence[Buffer]) -> bool:
        """The usual case: a message that fits one frame and every window, with nothing queued before it."""
        connection, size = self._h2, length + 5
        stream = connection.streams.get(call_id)
        if stream is None or size > connection.max_outbound_frame_size:
            return False
        if size > stream.outbound_flow_control_window or size > connection.outbound_flow_control_window:
            return False
        stream.outbound_flow_control_window -= size
        connection.outbound_flow_control_window -= size
        self._output.append(frames.message_head(length, call_id))
        self._output.extend(parts)
        self._output_size += size
        return True

    def end_call(self, call_id: int, status: int = Status.OK, message: str = "") -> None:
        """Our last word: a server's status behind what is queued, a client's half-close."""
        call = self._calls.get(call_id)
        if call is None or call.ending is not None:
            return
        if self._client:
            call.is_half_closing = True
        else:
            call.ending = [(b"grpc-status", str(int(status)).encode())]
            if message:
                call.ending.append((b"grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]").encode()))
        self._pump(call)

    def reset_call(self, call_id: int) -> None:
        """Drop the call at once, and what is queued on it."""
        if self._forget(call_id):
            with contextlib.suppress(h2.exceptions.ProtocolError):  # it ended in the meantime
                self._h2.reset_stream(call_id, h2.errors.ErrorCodes.CANCEL)
            self._collect()

    def acknowledge(self, call_id: int, cost: int) -> None:
        """`cost` bytes of this call have been consumed: its sender may send as many again."""
        call = self._calls.get(call_id)
        if call is None:
            return
        call.unacknowledged += cost
        if call.unacknowledged >= call.granted // 4:
            self._output.append(frames.window_update(call_id, call.unacknowledged))
            call.window += call.unacknowledged
            call.unacknowledged = 0

    def widen(self, call_id: int, by: int) -> None:
        """Let the peer of this call send `by` bytes more ahead."""
        call = self._calls.get(call_id)
        if call is not None:
            call.granted += by
            call.window += by
            self._output.append(frames.window_update(call_id, by))

    def ping(self, payload: bytes) -> None:
        self._h2.ping(payload)
        self._collect()

    def go_away(self) -> None:
        """Announce, in a GOAWAY written by hand, that no new call will be served; open ones go on."""
        self._output.append(frames.head(8, frames.GOAWAY, 0, 0) + frames.WINDOW_LIMIT.to_bytes(4, "big") + bytes(4))

    def take_output(self) -> list[Buffer]:
        """Everything to be written now, in order: heads joined to one piece, payloads as they are (not copied)."""
        output, self._output, self._output_size = self._output, [], 0
        pieces: list[Buffer] = []
        heads = bytearray()
        for piece in output:
            if len(piece) < WORTH_OWN_WRITE:
                heads += piece
                continue
            if heads:
                pieces.append(heads)
                heads = bytearray()
            pieces.append(piece)
        if heads:
            pieces.append(heads)
        return pieces

    @property
    def output_pieces(self) -> int:
        """How much there is to take, in pieces of any size."""
        return len(self._output)

    @property
    def output_size(self) -> int:
        """About how many bytes `take_output` would give."""
        return self._output_size

    def queued(self, call_id: int) -> int:
        """Bytes that wait for the peer's window."""
        call = self._calls.get(call_id)
        return call.queued if call is not None else 0

    # ------------------------------------------------------------ inside

    def _collect(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._output.append(data)

    def _forget(self, call_id: int) -> bool:
        return self._calls.pop(call_id, None) is not None

    def _reopen_connection(self, size: int) -> None:
        self._connection_window -= size
        self._connection_unacknowledged += size
        if self._connection_unacknowledged >= CONNECTION_WINDOW // 8:
            self._output.append(frames.window_update(0, self._connection_unacknowledged))
            self._connection_window += self._connection_unacknowledged
            self._connection_unacknowledged = 0

    def _pump(self, call: Call) -> None:
        """Write what the windows allow. h2 keeps the windows; the frames are ours (see `http2frames`)."""
        stream = self._h2.streams.get(call.id)
        if stream is None:
            self._forget(call.id)
            return
        connection, queue = self._h2, call.outbound
        while queue:
            room = min(stream.outbound_flow_control_window, connection.outbound_flow_control_window)
            room = min(room, connection.max_outbound_frame_size)
            if room <= 0:
                return
            length = call.fill_frame(room, self._output)
            self._output_size += length
            stream.outbound_flow_control_window -= length
            connection.outbound_flow_control_window -= length
        self._finish(call)

    def _finish(self, call: Call) -> None:
        try:
            if call.is_half_closing:
                call.is_half_closing = False
                self._h2.end_stream(call.id)
            elif call.ending is not None:
                headers = call.ending if call.is_accepted else _RESPONSE + call.ending
                self._h2.send_headers(call.id, headers, end_stream=True)
                self._forget(call.id)
                # RFC 9113, 8.1: a server that has said all may ask the client to stop (grpc-go does, too).
                self._h2.reset_stream(call.id, h2.errors.ErrorCodes.NO_ERROR)
        except h2.exceptions.ProtocolError:
            self._forget(call.id)  # the peer reset it while we were writing
        self._collect()


_RESPONSE: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
# One row per event of h2 that means something to gRPC.
_H2_EVENTS: dict[type, Callable[[GRPCConnection, Any, list[Event]], None]] = {
    h2.events.RequestReceived: GRPCConnection._on_request,
    h2.events.ResponseReceived: GRPCConnection._on_response,
    h2.events.TrailersReceived: GRPCConnection._on_trailers,
    h2.events.StreamEnded: GRPCConnection._on_end,
    h2.events.StreamReset: GRPCConnection._on_reset,
    h2.events.WindowUpdated: GRPCConnection._on_window,
    h2.events.RemoteSettingsChanged: GRPCConnection._on_window,
    h2.events.PingAckReceived: GRPCConnection._on_ping_ack,
}
