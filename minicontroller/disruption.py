"""PodDisruptionBudgets: how many pods may go now.

My job: count healthy pods of each budget and write what the eviction endpoint needs to decide
(`pkg/controller/disruption`).
"""

import math
from collections.abc import Iterable
from typing import Any

from minicontroller.actions import Action, After, Patch
from minicontroller.controller import Controller, Key, key_of
from minicontroller.informers import each
from minicontroller.ownership import controller_of, labels_of, matches
from minicontroller.podstate import is_finished, is_ready, is_terminating, seconds, with_condition
from wire.apiclient import resource_path

JSON = dict[str, Any]

#: A pod that was to be evicted but is still there counts again after so long.
EVICTION_SECONDS = 120.0
SCALABLE = {"ReplicaSet": "replicasets", "Deployment": "deployments", "StatefulSet": "statefulsets"}


class Disruption(Controller):
    name = "disruption"

    def watch(self) -> None:
        self.budgets = self.on(self.informers.of("policy", "v1", "poddisruptionbudgets"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), self._budgets_of)
        self.sets = self.informers.of("apps", "v1", "replicasets")

    def _budgets_of(self, pod: JSON) -> Iterable[Key]:
        return [
            key_of(budget)
            for budget in each(self.budgets, pod["metadata"]["namespace"])
            if matches(budget["spec"].get("selector"), labels_of(pod))
        ]

    def plan(self, key: Key) -> Iterable[Action]:
        budget = self.budgets.objects.get(key)
        if budget is None:
            return
        pods = [
            pod
            for pod in each(self.pods, key[0])
            if matches(budget["spec"].get("selector"), labels_of(pod)) and not is_finished(pod)
        ]
        disrupted = self._still_disrupted(budget, pods)
        expected = self._expected(budget, pods)
        desired = desired_healthy(budget["spec"], expected)
        healthy = sum(
            is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
        )
        allowed = max(healthy - desired, 0) if expected else 0
        status: JSON = {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
            "observedGeneration": budget["metadata"].get("generation", 0),
            "disruptedPods": disrupted or None,
        }
        status["conditions"] = with_condition(
            list((budget.get("status") or {}).get("conditions") or []),
            {
                "type": "DisruptionAllowed",
                "status": "True" if allowed else "False",
                "reason": "SufficientPods" if allowed else "InsufficientPods",
                "message": "",
                "observedGeneration": status["observedGeneration"],
            },
            self.clock(),
        )
        old = budget.get("status") or {}
        if any((old.get(name) or 0) != (value or 0) for name, value in status.items()):
            yield Patch(
                resource_path("policy", "v1", "poddisruptionbudgets", key[0], key[1], "status"),
                {"metadata": {"resourceVersion": budget["metadata"]["resourceVersion"]}, "status": status},
            )
        if disrupted:
            yield After(EVICTION_SECONDS)

    def _still_disrupted(self, budget: JSON, pods: list[JSON]) -> JSON:
        names = {pod["metadata"]["name"] for pod in pods if not is_terminating(pod)}
        found = (budget.get("status") or {}).get("disruptedPods") or {}
        return {
            name: when
            for name, when in found.items()
            if name in names and self.clock() - seconds(when) < EVICTION_SECONDS
        }

    def _expected(self, budget: JSON, pods: list[JSON]) -> int:
        """How many pods there should be: what their owners want, for percentages and maxUnavailable."""
        spec = budget["spec"]
        if isinstance(spec.get("minAvailable"), int) and "maxUnavailable" not in spec:
            return len(pods)
        total, counted = 0, set()
        for pod in pods:
            reference = controller_of(pod)
            if reference is None or reference["kind"] != "ReplicaSet":
                total += 1
            elif reference["uid"] not in counted:
                counted.add(reference["uid"])
                owner = self.sets.objects.get((pod["metadata"]["namespace"], reference["name"]))
                total += owner["spec"].get("replicas", 1) if owner else 0
        return total


def desired_healthy(spec: JSON, expected: int) -> int:
    if "maxUnavailable" in spec and spec["maxUnavailable"] is not None:
        return max(expected - _resolved(spec["maxUnavailable"], expected), 0)
    return _resolved(spec.get("minAvailable", 1), expected)


def _resolved(value: int | str, total: int) -> int:
    return math.ceil(int(value.rstrip("%") or 0) * total / 100) if isinstance(value, str) else value
