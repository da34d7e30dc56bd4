"""Which nodes a pod may run on, why not on others, and which is best."""

from typing import Any

from objects import StillInformers, meta, pod

from minicontroller.actions import Create
from minicontroller.nodelifecycle import time_left
from minicontroller.scheduler.amounts import Amounts, quantity, request_of
from minicontroller.scheduler.filters import NodeState, refusal
from minicontroller.scheduler.scheduler import Scheduler, failure_message
from minicontroller.scheduler.scores import best
from wire.nodeplacement import tolerates

JSON = dict[str, Any]


def node(name: str, *, cpu: str = "4", labels: JSON | None = None, **spec: Any) -> JSON:
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "uid": name, "labels": labels or {}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    }


def unbound(**spec: Any) -> JSON:
    found = pod("new", node="")
    found["spec"] = {"containers": [{"name": "c", "image": "i"}], **spec}
    return found


def why(asked: JSON, *states: NodeState) -> str:
    return refusal(asked, states[0], states)


def test_quantities_are_exact() -> None:
    assert [quantity(text) * 1000 for text in ("100m", "1", "0.5", "2k")] == [100, 1000, 500, 2_000_000]
    assert quantity("1Gi") == 2**30


def test_init_containers_count_only_as_their_maximum() -> None:
    asked = unbound(
        initContainers=[{"name": "i", "resources": {"requests": {"cpu": "3"}}}],
        containers=[{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
    )
    assert request_of(asked).values["cpu"] == 3


def test_an_init_container_runs_beside_the_sidecars_before_it() -> None:
    def one(cpu: str, **more: str) -> dict[str, object]:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}} | more

    asked = unbound(initContainers=[one("1", restartPolicy="Always"), one("3")], containers=[one("1")])
    assert request_of(asked).values["cpu"] == 4


def test_a_full_node_is_refused_by_the_resource_it_lacks() -> None:
    asked = unbound(containers=[{"name": "c", "resources": {"requests": {"cpu": "5"}}}])
    assert why(asked, NodeState(node("a"))) == "Insufficient cpu"
    assert why(asked, NodeState(node("a", cpu="6"))) == ""


def test_a_taint_is_refused_unless_tolerated() -> None:
    tainted = node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert "untolerated taint(s) {k: v}" in why(unbound(), NodeState(tainted))
    assert why(unbound(tolerations=[{"key": "k", "operator": "Exists"}]), NodeState(tainted)) == ""


def test_an_empty_toleration_with_exists_tolerates_everything() -> None:
    assert tolerates({"operator": "Exists"}, {"key": "any", "effect": "NoExecute"})
    assert not tolerates({"operator": "Equal", "value": ""}, {"key": "any", "effect": "NoExecute"})


def test_node_selector_and_affinity_must_hold() -> None:
    labelled = NodeState(node("a", labels={"disk": "ssd"}))
    assert why(unbound(nodeSelector={"disk": "ssd"}), labelled) == ""
    assert why(unbound(nodeSelector={"disk": "hdd"}), labelled) == "node(s) didn't match Pod's node affinity/selector"


def test_anti_affinity_keeps_two_pods_apart() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    asked = unbound(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    host = {"kubernetes.io/hostname": "a"}
    assert "anti-affinity" in why(asked, NodeState(node("a", labels=host), {"p": pod("p")}))
    assert why(asked, NodeState(node("a", labels=host))) == ""


def test_the_emptier_node_is_chosen() -> None:
    busy, idle = NodeState(node("a"), {"p": pod("p"), "q": pod("q")}), NodeState(node("b"))
    assert best(unbound(), [busy, idle]).name == "b"


def test_the_message_counts_reasons_as_upstream_does() -> None:
    assert failure_message(["Insufficient cpu", "Insufficient cpu, Insufficient memory"]).startswith(
        "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu."
    )


async def test_a_pod_that_fits_is_bound_and_an_event_says_so() -> None:
    informers = StillInformers()
    scheduler = Scheduler(informers)
    informers.put("nodes", node("a"))
    informers.put("pods", unbound())
    binding, event = [action for action in scheduler.plan(("ns", "new")) if isinstance(action, Create)]
    assert binding.path.endswith("/pods/new/binding") and binding.body["target"]["name"] == "a"
    assert event.body["reason"] == "Scheduled"


async def test_a_pod_with_scheduling_gates_is_left_alone() -> None:
    informers = StillInformers()
    scheduler = Scheduler(informers)
    informers.put("nodes", node("a"))
    informers.put("pods", unbound(schedulingGates=[{"name": "wait"}]))
    assert list(scheduler.plan(("ns", "new"))) == []


def test_a_pod_leaves_a_noexecute_taint_when_its_toleration_ends() -> None:
    taint = {"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    patient = {"spec": {"tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]}}
    added = 1767225600.0
    assert time_left(patient, [taint], added + 100) == 200
    assert time_left({"spec": {}}, [taint], added) == 0
    assert time_left({"spec": {"tolerations": [{"operator": "Exists"}]}}, [taint], added) is None


def test_amounts_name_what_is_missing() -> None:
    assert Amounts.of({"cpu": "2"}).beyond(Amounts.of({"cpu": "1", "memory": "1"})) == ["cpu"]
    assert meta("x")["uid"] == "uid-x"
