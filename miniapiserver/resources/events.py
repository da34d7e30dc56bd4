"""Events, of core/v1 and of events.k8s.io/v1."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

EVENTS = Group("events.k8s.io", "v1", "io.k8s.api.events")


def rows() -> tuple[Resource, ...]:
    return (EVENTS.row("Event", "events", ObjectStrategy(create_on_update=True), short=("ev",), storage="events", ttl=3600.0),)
