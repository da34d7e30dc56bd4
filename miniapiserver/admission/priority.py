"""A pod's priority, computed from its PriorityClass.

My job: the Priority plugin (`plugin/pkg/admission/priority`): numbers never come from the client.
"""

from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden
from miniapiserver.registry.objects import Objects

STORAGE = "priorityclasses.scheduling.k8s.io"
DEFAULT_POLICY = "PreemptLowerPriority"
SYSTEM = frozenset({"system-node-critical", "system-cluster-critical"})


class Priority(Plugin):
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def validate(self, attributes: Attributes) -> None:
        """The system's own classes stay (upstream asks this in the registry, `priorityclass/storage`)."""
        row = attributes.row
        if attributes.operation is Operation.DELETE and row.plural == "priorityclasses" and attributes.name in SYSTEM:
            raise Forbidden.resource(row.plural, row.group, attributes.name,
                                     "this is a system priority class and cannot be deleted")

    async def admit(self, attributes: Attributes) -> None:
        row = attributes.row
        if row.plural != "pods" or row.group or attributes.subresource or attributes.operation is not Operation.CREATE:
            return
        assert attributes.obj is not None
        spec = attributes.obj["spec"]
        name, value, policy = self._computed(attributes, spec)
        if spec.get("priority") not in (None, value):
            raise _conflict(attributes, f"the integer value of priority ({spec['priority']})", value)
        if spec.get("preemptionPolicy") not in (None, policy):
            raise _conflict(attributes, f"the string value of PreemptionPolicy ({spec['preemptionPolicy']})", policy)
        if name:
            spec["priorityClassName"] = name
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def _computed(self, attributes: Attributes, spec: dict[str, Any]) -> tuple[str, int, str]:
        asked = spec.get("priorityClassName") or ""
        if not asked:
            return self._default()
        found = self._objects.get(STORAGE, "", asked)
        if found is None:
            raise Forbidden.resource("pods", "", attributes.name, f"no PriorityClass with name {asked} was found")
        return asked, found.get("value", 0), found.get("preemptionPolicy") or DEFAULT_POLICY

    def _default(self) -> tuple[str, int, str]:
        """The class marked globalDefault with the lowest value, else zero."""
        classes = [item for item in self._objects.list(STORAGE) if item.get("globalDefault")]
        if not classes:
            return "", 0, DEFAULT_POLICY
        chosen = min(classes, key=lambda item: int(item.get("value", 0)))
        return chosen["metadata"]["name"], chosen.get("value", 0), chosen.get("preemptionPolicy") or DEFAULT_POLICY


def _conflict(attributes: Attributes, given: str, computed: int | str) -> Forbidden:
    return Forbidden.resource("pods", "", attributes.name, f"{given} must not be provided in pod spec; priority "
                              f"admission controller computed {computed} from the given PriorityClass name")
