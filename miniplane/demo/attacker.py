"""The interceptor's process, as the lab sees it: start it, tell it what to do, count what it learned.

My job: one child process and its account. What it has told before a mark is there when the mark comes back, so a
scene's step knows exactly what the attacker had from it.
"""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, Final, Self

from miniplane.errors import StartError
from miniplane.launch import environment

JSON = dict[str, Any]

PATIENCE: Final = 10.0
#: Streams on which pods and people say something.
POD_STREAMS: Final = ("response", "stdout", "stderr")
CLIENT_STREAMS: Final = ("request", "stdin")


@dataclass(frozen=True, slots=True)
class Account:
    """What an attacker had from something: the counted facts, and the words."""

    events: tuple[JSON, ...] = ()

    def of(self, kind: str) -> list[JSON]:
        return [event for event in self.events if event["event"] == kind]

    def text(self, *streams: str) -> str:
        return "".join(event["text"] for event in self.of("read") if event["stream"] in streams)

    def count(self, *streams: str) -> int:
        return sum(event["bytes"] for event in self.of("read") if event["stream"] in streams)

    @property
    def credentials(self) -> list[str]:
        shown = [event["client"] for event in self.of("handshake") if event["client"]]
        return shown + ["a bearer token" for event in self.of("request") if event["credential"]]

    def __add__(self, other: "Account") -> "Account":
        return Account(self.events + other.events)

    def facts(self) -> JSON:
        return {
            "connections": len(self.of("connection")),
            "handshakesRefused": len(self.of("refused")),
            "requests": len(self.of("request")),
            "bytesOfPodData": self.count(*POD_STREAMS),
            "bytesOfClientData": self.count(*CLIENT_STREAMS),
            "clientCredentials": len(self.credentials),
            "commandsTyped": len(self.of("typed")),
            "answersForged": len(self.of("forged")),
            "bytesPassed": sum(event["bytes"] for event in self.of("sniffed")),
            "secretsSeenPassing": sum(event["found"] for event in self.of("sniffed")),
        }


@dataclass(slots=True)
class Attacker:
    """A running interceptor. `with` it."""

    arguments: tuple[str, ...]
    _process: "subprocess.Popen[str] | None" = None
    _events: list[JSON] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _marks: int = 0
    _told: int = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "miniplane.demo.interceptor", *self.arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        threading.Thread(target=self._listen, name="interceptor", daemon=True).start()
        self._wait(lambda: any(event["event"] == "listening" for event in self._events))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def attack(self) -> None:
        self._tell("attack")

    def be_quiet(self) -> None:
        self._tell("pass")

    def await_victim(self, *events: str) -> None:
        """Until a caller has come and one of these has happened to it. Raises StartError."""
        self._wait(lambda: any(event["event"] in events for event in self._events[self._told :]))

    def account(self) -> Account:
        """What it has learned since the last account."""
        self._marks += 1
        self._tell(f"mark {self._marks}")
        with self._news:
            told, self._told = self._events[self._told :], len(self._events)
        return Account(tuple(event for event in told if event["event"] != "mark"))

    def _tell(self, command: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        done = {"event": "mark", "words": command.split()}
        seen = self._events.count(done)
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        self._wait(lambda: self._events.count(done) > seen)

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _wait(self, condition: Any) -> None:
        assert self._process is not None
        with self._news:
            if not self._news.wait_for(lambda: condition() or self._process.poll() is not None, PATIENCE):  # type: ignore[union-attr]
                raise StartError("the interceptor does not answer")
        if not condition():
            said = self._process.stderr.read().strip() if self._process.stderr else ""
            raise StartError(f"the interceptor has ended: {said}")
