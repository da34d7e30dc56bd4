"""Both engines against an in-memory model: any sequence of operations gives what the model gives."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from miniapiserver.storage.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyValue,
    Storage,
)

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[Storage]]

KEYS = st.sampled_from(["a", "a/b", "a/c", "ab", "b", "c/d", "é"])
VALUES = st.binary(max_size=20)


@dataclass
class Model:
    """Every event ever, and the state it led to."""

    state: dict[str, KeyValue] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    compacted: int = 0

    def put(self, key: str, value: bytes, revision: int) -> None:
        old = self.state.get(key)
        new = KeyValue(key, value, old.create_revision if old else revision, revision)
        self.events.append(Event(EventType.PUT, key, revision, new, old))
        self.state[key] = new

    def delete(self, key: str, revision: int) -> None:
        self.events.append(Event(EventType.DELETE, key, revision, None, self.state.pop(key)))

    def at(self, revision: int) -> list[KeyValue]:
        state: dict[str, KeyValue] = {}
        for event in self.events:
            if event.revision <= revision:
                state.pop(event.key, None)
                if event.value:
                    state[event.key] = event.value
        return [state[key] for key in sorted(state)]


class StorageMachine(RuleBasedStateMachine):
    opener: Opener

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.prefix = f"/registry/{uuid4()}/"

    def run_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def open(self) -> None:
        self.context = type(self).opener()
        self.storage = self.run_(self.context.__aenter__())
        self.first = self.run_(self.storage.current_revision())

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.run_(self.context.__aexit__(None, None, None))
        self.runner.close()

    @rule()
    def reopen(self) -> None:
        self.run_(self.context.__aexit__(None, None, None))
        self.context = type(self).opener()
        self.storage = self.run_(self.context.__aenter__())

    @rule(key=KEYS, value=VALUES)
    def create(self, key: str, value: bytes) -> None:
        key = self.prefix + key
        if key in self.model.state:
            with pytest.raises(KeyExists):
                self.run_(self.storage.create(key, value))
        else:
            self.model.put(key, value, self.run_(self.storage.create(key, value)))

    @rule(key=KEYS, value=VALUES, stale=st.integers(0, 3))
    def update(self, key: str, value: bytes, stale: int) -> None:
        key = self.prefix + key
        current = self.model.state.get(key)
        expected = current.mod_revision - stale if current else self.first
        if current and not stale:
            self.model.put(key, value, self.run_(self.storage.update(key, value, expected=expected)))
        else:
            with pytest.raises(Conflict) as error:
                self.run_(self.storage.update(key, value, expected=expected))
            assert error.value.current == current

    @rule(key=KEYS, stale=st.integers(0, 1))
    def delete(self, key: str, stale: int) -> None:
        key = self.prefix + key
        current = self.model.state.get(key)
        expected = current.mod_revision - stale if current else self.first
        if current and not stale:
            self.model.delete(key, self.run_(self.storage.delete(key, expected=expected)))
        else:
            with pytest.raises(Conflict) as error:
                self.run_(self.storage.delete(key, expected=expected))
            assert error.value.current == current

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.run_(self.storage.get(self.prefix + key)) == self.model.state.get(self.prefix + key)

    @rule(back=st.integers(-2, 12), limit=st.integers(0, 4))
    def list_in_pages(self, back: int, limit: int) -> None:
        revision = self.run_(self.storage.current_revision()) - back
        if back < 0:
            with pytest.raises(FutureRevision):
                self.run_(self.storage.range(self.prefix, revision=revision))
        elif self.first <= revision < self.model.compacted:
            with pytest.raises(Compacted) as error:
                self.run_(self.storage.range(self.prefix, revision=revision))
            assert error.value.oldest == self.model.compacted
        elif revision >= self.first:
            assert self._pages(revision, limit) == self.model.at(revision)

    def _pages(self, revision: int, limit: int) -> list[KeyValue]:
        items: list[KeyValue] = []
        start, more = "", True
        while more:
            page = self.run_(self.storage.range(self.prefix, start=start, limit=limit, revision=revision))
            assert page.revision == revision
            assert page.count == len(self.model.at(revision)) - len(items)
            items += page.items
            start, more = (items[-1].key + "\0" if items else ""), page.more
        return items

    @rule(back=st.integers(0, 20))
    def watch(self, back: int) -> None:
        after = max(self.run_(self.storage.current_revision()) - back, self.first)
        if after < self.model.compacted:
            with pytest.raises(Compacted):
                self.run_(self._watch(after, 1))
        else:
            expected = [event for event in self.model.events if event.revision > after]
            assert self.run_(self._watch(after, len(expected))) == expected

    async def _watch(self, after: int, count: int) -> list[Event]:
        events: list[Event] = []
        async with asyncio.timeout(10), aclosing(self.storage.watch(self.prefix, after=after)) as watch:
            async for batch in watch:
                events += batch
                if len(events) >= count:
                    break
        return events

    @rule(back=st.integers(0, 8))
    def compact(self, back: int) -> None:
        revision = self.run_(self.storage.current_revision()) - back
        if revision > max(self.model.compacted, self.first):
            self.run_(self.storage.compact(revision))
            self.model.compacted = revision


def test_any_sequence_of_operations_gives_what_the_model_gives(open_engine: Opener) -> None:
    machine = type("Machine", (StorageMachine,), {"opener": staticmethod(open_engine)})
    run_state_machine_as_test(machine, settings=settings(  # type: ignore[no-untyped-call]
        max_examples=25, stateful_step_count=40, deadline=None, database=None,
        suppress_health_check=list(HealthCheck)))
