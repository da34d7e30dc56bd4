"""What a scene is made of: acts of steps, each with what the person saw and what the attacker had from it.

My job: the types, and the facts they add up to. Neighbours: the scenes play, `screen` shows, tests assert the facts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from miniplane.demo.attacker import Account
from miniplane.demo.lab import Said

JSON = dict[str, Any]

PAGE: Final = "https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/"


@dataclass(frozen=True, slots=True)
class Step:
    """One command: what came back, and what it told the attacker."""

    said: Said
    account: Account


@dataclass(slots=True)
class Act:
    """The same commands under one setting."""

    name: str
    setting: str
    steps: list[Step] = field(default_factory=list)
    extra: JSON = field(default_factory=dict)

    @property
    def account(self) -> Account:
        return sum((step.account for step in self.steps), Account())

    def facts(self) -> JSON:
        return self.account.facts() | self.extra


class Stage(Protocol):
    """Whoever watches: told of acts as they begin and of steps as they happen."""

    def begins(self, act: Act) -> None: ...

    def happened(self, step: Step) -> None: ...

    def waits(self, what: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the table."""

    name: str
    title: str
    text: str
    anchor: str
    picture: str
    play: Callable[[Stage], list[Act]]
    lesson: str

    @property
    def link(self) -> str:
        return f"{PAGE}#{self.anchor}"
