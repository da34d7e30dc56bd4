"""The life of a program as a table."""

import itertools

import pytest

from miniplane.processes import Exit, Identity
from miniplane.worker import TRANSITIONS, Event, Phase, delay_before, next_phase


def test_every_allowed_move_is_in_the_table_and_every_other_is_named() -> None:
    for phase, event in itertools.product(Phase, Event):
        if event in TRANSITIONS[phase]:
            assert next_phase(phase, event) is TRANSITIONS[phase][event]
        else:
            with pytest.raises(AssertionError, match=f"a {phase.value} program cannot {event.value}"):
                next_phase(phase, event)


def test_delays_double_up_to_half_a_minute() -> None:
    assert [delay_before(crashes) for crashes in (1, 2, 3, 8, 9, 50)] == [0.2, 0.4, 0.8, 25.6, 30.0, 30.0]


def test_an_exit_is_said_in_words() -> None:
    assert [Exit(code).words for code in (0, 3, -9, -99)] == [
        "exit code 0", "exit code 3", "killed by SIGKILL", "killed by signal 99",
    ]  # fmt: skip


def test_a_pid_used_again_is_another_process() -> None:
    import os

    ours = Identity.of(os.getpid())
    assert ours is not None and ours.is_alive
    assert not Identity(ours.pid, ours.start_time - 1).is_alive
