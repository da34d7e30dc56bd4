"""Pods nobody else will remove.

My job: pods bound to a node that no longer exists, pods being deleted that were never bound, and finished pods beyond
a bound (`pkg/controller/podgc`).
"""

from collections.abc import Iterable
from typing import Any

from minicontroller.actions import Action, After, Delete
from minicontroller.controller import Controller, Key
from minicontroller.podstate import is_finished, is_terminating, seconds
from wire.apiclient import resource_path

JSON = dict[str, Any]

INTERVAL_SECONDS = 20.0
#: A node that vanished may come back under its name.
QUARANTINE_SECONDS = 40.0
MOST_FINISHED = 12500


class PodGC(Controller):
    """One key: the whole cluster, every interval and when a node goes."""

    name = "podgc"

    def watch(self) -> None:
        self._missing_since: dict[str, float] = {}
        self.pods = self.informers.of("", "v1", "pods")
        self.nodes = self.on(self.informers.of("", "v1", "nodes"), lambda node: (("", "cluster"),))
        self.queue.add(("", "cluster"))

    def plan(self, key: Key) -> Iterable[Action]:
        now = self.clock()
        pods = list(self.pods.objects.values())
        nodes = {name for _, name in self.nodes.objects}
        used = {pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}
        self._missing_since = {name: self._missing_since.get(name, now) for name in used - nodes}
        for pod in pods:
            node = pod["spec"].get("nodeName", "")
            if (node in self._missing_since and now - self._missing_since[node] >= QUARANTINE_SECONDS) or (
                not node and is_terminating(pod)
            ):
                yield _remove(pod)
        finished = sorted(
            (pod for pod in pods if is_finished(pod)),
            key=lambda pod: seconds(pod["metadata"].get("creationTimestamp", "")),
        )
        for pod in finished[: max(len(finished) - MOST_FINISHED, 0)]:
            yield _remove(pod)
        yield After(INTERVAL_SECONDS)


def _remove(pod: JSON) -> Action:
    metadata = pod["metadata"]
    return Delete(resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]), metadata["uid"], grace=0)
