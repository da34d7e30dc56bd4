"""From a front's wish to an agent's connection.

Job: `Backend` is one agent link with the dials it has been asked for; `Dial` is one front's wish, which picks a
backend, waits no longer than its deadline, and asks another agent if the first one's link is lost meanwhile.
Neighbours: `backends` picks, `link` carries.
Rule: an answer reaches its front within the same turn of the loop, so that no byte behind it can be lost; a dial ends
exactly once.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Protocol

from konnectivity.deadlines import Deadlines
from konnectivity.dialerrors import VIA, from_wire
from konnectivity.link import LinkLeg, TunnelLink
from konnectivity.protocol.tunnel import DialFailed, Dialled, Draining, Event, ServerTunnel
from konnectivity.server.backends import Backends
from konnectivity.server.identifiers import Identifiers
from wire.errors import DialError, DialTimeout, NoTunnel

ANSWER_EXPECTED = 6.0  # an agent answers every dial within its own 5 s; one that does not is passed over


class DialOwner(Protocol):
    """The front that wants the connection. Exactly one of the two is called, once."""

    def on_dialled(self, leg: LinkLeg) -> None: ...
    def on_dial_failed(self, error: DialError) -> None: ...


class Backend:
    """One agent link as the server sees it. Lives as long as its Connect call."""

    def __init__(self, agent_id: str, identifiers: Identifiers, tunnel: ServerTunnel) -> None:
        self.agent_id = agent_id
        self.identifiers = identifiers
        self.tunnel = tunnel
        self.is_draining = False
        self.link: TunnelLink  # set by who opened the call, at once
        self._dials: dict[int, Dial] = {}

    def __repr__(self) -> str:
        state = " draining" if self.is_draining else ""
        return f"<Backend {self.agent_id} connections={self.load} dials={len(self._dials)}{state}>"

    @property
    def load(self) -> int:
        return len(self.tunnel)

    @property
    def pending_dials(self) -> int:
        return len(self._dials)

    @property
    def is_silent(self) -> bool:
        """A dial has waited longer than any live agent takes (the circuit is open until it answers)."""
        for dial in self._dials.values():  # oldest first
            return dial.age > ANSWER_EXPECTED
        return False

    def ask(self, dial: "Dial") -> None:
        self._dials[dial.dial_id] = dial
        self.tunnel.dial(dial.dial_id, dial.address)
        self.link.send_packets()

    def cancel(self, dial: "Dial") -> None:
        if self._dials.pop(dial.dial_id, None) is not None:
            self.tunnel.cancel(dial.dial_id)
            self.link.send_packets()

    def on_event(self, event: Event) -> None:
        match event:
            case Dialled(dial_id, connect_id):
                leg = self.link.open_leg(connect_id)
                self._dials.pop(dial_id).on_dialled(leg)
            case DialFailed(dial_id, error, error_type):
                dial = self._dials.pop(dial_id)
                dial.on_failed(from_wire(dial.address, error, error_type))
            case Draining():
                self.is_draining = True

    def on_lost(self, reason: str) -> None:
        dials, self._dials = list(self._dials.values()), {}
        for dial in dials:
            dial.on_link_lost(self, reason)


class Dial:
    """One front's wish for a connection. Lives until it is answered, cancelled or too old."""

    __slots__ = ("_backend", "_desk", "_owner", "_started", "_tried", "address", "dial_id", "is_over")

    def __init__(self, address: str, owner: DialOwner, desk: "DialDesk") -> None:
        self.address = address
        self.dial_id = desk.new_dial_id()
        self.is_over = False
        self._owner = owner
        self._desk = desk
        self._backend: Backend | None = None
        self._tried: list[Backend] = []
        self._started = desk.loop.time()

    @property
    def age(self) -> float:
        return self._desk.loop.time() - self._started

    def start(self) -> None:
        self._desk.deadlines.add(self)
        self._ask_next("No agent available")

    def cancel(self) -> None:
        """The front has gone. Its owner hears nothing more."""
        if self._end():
            self._desk.count_failure("frontend_close")
            if self._backend is not None:
                self._backend.cancel(self)

    def _ask_next(self, otherwise: str) -> None:
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            self._backend = self._desk.backends.pick(host, without=self._tried)
        except NoTunnel:
            self._fail(NoTunnel(self.address, VIA, otherwise), "no_agent")
            return
        self._backend.ask(self)

    def on_dialled(self, leg: LinkLeg) -> None:
        if self._end():
            self._desk.observe(self.age)
            self._owner.on_dialled(leg)

    def on_failed(self, error: DialError) -> None:
        self._fail(error, "error_response")

    def on_link_lost(self, backend: Backend, reason: str) -> None:
        self._tried.append(backend)
        self._desk.count_failure("backend_close")
        self._ask_next(f"agent lost while dialling: {reason}")

    def on_timeout(self) -> None:
        if self._backend is not None:
            self._backend.cancel(self)
        reason = f"no answer from the agent within {self._desk.deadlines.timeout:g} s (timeout)"
        self._fail(DialTimeout(self.address, VIA, reason), "backend_dial_timeout")

    def _fail(self, error: DialError, reason: str) -> None:
        if self._end():
            self._desk.count_failure(reason)
            self._owner.on_dial_failed(error)

    def _end(self) -> bool:
        """Whether this is the one end."""
        self._desk.deadlines.discard(self)
        is_first, self.is_over = not self.is_over, True
        return is_first


class DialDesk:
    """Where fronts bring their wishes."""

    def __init__(
        self,
        backends: Backends[Backend],
        timeout: float,
        source: random.Random,
        observe: Callable[[float], None],
        count_failure: Callable[[str], None],
    ) -> None:
        self.backends = backends
        self.loop = asyncio.get_running_loop()
        self.deadlines: Deadlines[Dial] = Deadlines(timeout, Dial.on_timeout)
        self.observe = observe
        self.count_failure = count_failure
        # "random" on the wire, where it need only be unique in this server; a short number is a short varint.
        self._dial_ids = itertools.count(source.getrandbits(27) + 1)

    def new_dial_id(self) -> int:
        return next(self._dial_ids)

    def dial(self, address: str, owner: DialOwner) -> Dial:
        dial = Dial(address, owner, self)
        dial.start()
        return dial
