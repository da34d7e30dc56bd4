"""What `kubectl get pods` shows."""

from typing import Any

import pytest

from miniapiserver.resources.pods.table import PODS

NOW = 1_000_000.0
SOON = "1970-01-12T13:46:10Z"  # thirty seconds before NOW


def cells(status: dict[str, Any], *, deleted: bool = False, **spec: Any) -> list[Any]:
    meta = {"name": "p", "creationTimestamp": SOON} | ({"deletionTimestamp": SOON} if deleted else {})
    return PODS.cells({"metadata": meta, "spec": {"containers": [{"name": "c"}]} | spec, "status": status}, NOW)


def container(**state: Any) -> dict[str, Any]:
    return {"name": "c", "ready": "running" in state, "restartCount": 0, "state": state}


def test_columns_are_upstreams() -> None:
    assert [(column.name, column.priority) for column in PODS.columns] == [
        ("Name", 0),
        ("Ready", 0),
        ("Status", 0),
        ("Restarts", 0),
        ("Age", 0),
        ("IP", 1),
        ("Node", 1),
        ("Nominated Node", 1),
        ("Readiness Gates", 1),
    ]
    assert PODS.columns[0].format == "name"
    assert {column.type for column in PODS.columns} == {"string"}


def test_a_pod_that_nobody_runs_yet() -> None:
    assert cells({"phase": "Pending"}, nodeName="n") == [
        "p", "0/1", "Pending", "0", "30s", "<none>", "n", "<none>", "<none>"]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Running", "containerStatuses": [container(running={})]}, "Running"),
        (
            {"phase": "Pending", "containerStatuses": [container(waiting={"reason": "ImagePullBackOff"})]},
            "ImagePullBackOff",
        ),
        ({"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 1, "reason": "Error"})]}, "Error"),
        ({"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 3})]}, "ExitCode:3"),
        ({"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 137, "signal": 9})]}, "Signal:9"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            "SchedulingGated",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [container(running={}), container(terminated={"reason": "Completed"})],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [container(terminated={"reason": "Completed"}), container(running={})],
            },
            "NotReady",
        ),
    ],
)
def test_status_sums_up_the_containers(status: dict[str, Any], word: str) -> None:
    assert cells(status)[2] == word


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"waiting": {"reason": "PodInitializing"}}, "Init:0/1"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "Init:CrashLoopBackOff"),
        ({"terminated": {"exitCode": 2}}, "Init:ExitCode:2"),
        ({"terminated": {"exitCode": 1, "reason": "Error"}}, "Init:Error"),
        ({"running": {}}, "Init:0/1"),
    ],
)
def test_status_while_initializing(state: dict[str, Any], word: str) -> None:
    status = {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]}
    assert cells(status, initContainers=[{"name": "i"}])[2] == word


def test_a_running_sidecar_counts_as_a_container() -> None:
    status = {"phase": "Running", "containerStatuses": [container(running={})],
              "initContainerStatuses": [{"name": "s", "started": True, "ready": True, "state": {"running": {}}}]}
    assert cells(status, initContainers=[{"name": "s", "restartPolicy": "Always"}])[1] == "2/2"


def test_restarts_say_when_the_last_was() -> None:
    crashed = container(running={}) | {"restartCount": 2, "lastState": {"terminated": {"finishedAt": SOON}}}
    assert cells({"phase": "Running", "containerStatuses": [crashed]})[3] == "2 (30s ago)"


def test_a_pod_that_is_going() -> None:
    assert cells({"phase": "Running"}, deleted=True)[2] == "Terminating"
    assert cells({"phase": "Succeeded"}, deleted=True)[2] == "Succeeded"
    assert cells({"phase": "Running", "reason": "NodeLost"}, deleted=True)[2] == "Unknown"


def test_readiness_gates_are_counted() -> None:
    status = {"phase": "Running", "conditions": [{"type": "a/b", "status": "True"}]}
    assert cells(status, readinessGates=[{"conditionType": "a/b"}, {"conditionType": "c/d"}])[8] == "1/2"
