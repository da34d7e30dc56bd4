"""The life of a pod on a node, as a table.

My job: which state follows on which event; every other move is a bug and raises. Pure. Neighbours: `worker` applies
it.
"""

import enum


class PodState(enum.Enum):
    ADMITTING = "admitting"
    SETTING_UP = "setting up"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    GONE = "gone"


class PodEvent(enum.Enum):
    ADMITTED = "admitted"
    REJECTED = "rejected"
    SET_UP = "set up"
    COMPLETED = "completed"
    STOP = "stop"
    STOPPED = "stopped"
    FORGOTTEN = "forgotten"


TRANSITIONS: dict[tuple[PodState, PodEvent], PodState] = {
    (PodState.ADMITTING, PodEvent.ADMITTED): PodState.SETTING_UP,
    (PodState.ADMITTING, PodEvent.REJECTED): PodState.TERMINATED,
    (PodState.SETTING_UP, PodEvent.SET_UP): PodState.RUNNING,
    (PodState.SETTING_UP, PodEvent.STOP): PodState.TERMINATING,
    (PodState.RUNNING, PodEvent.COMPLETED): PodState.TERMINATING,
    (PodState.RUNNING, PodEvent.STOP): PodState.TERMINATING,
    (PodState.TERMINATING, PodEvent.STOPPED): PodState.TERMINATED,
    (PodState.TERMINATED, PodEvent.FORGOTTEN): PodState.GONE,
}


class IllegalMove(Exception):
    """A move the table does not have."""


def next_state(state: PodState, event: PodEvent) -> PodState:
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalMove(f"pod is {state.value}: {event.value} is no move from there") from None
