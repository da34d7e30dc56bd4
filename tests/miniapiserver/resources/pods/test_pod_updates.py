"""What may change in a pod, through which endpoint."""

from typing import Any

from tests.miniapiserver.resources.writes import JSON, created, pod, updated, words

MAIN = ("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n")


def existing(**spec: Any) -> JSON:
    obj, errors = created("pods", pod(**spec))
    assert errors == []
    return obj


def containers(**changes: Any) -> JSON:
    return {"spec": {"containers": [{"name": "c", "image": "busybox:1", "imagePullPolicy": "IfNotPresent"} | changes]}}


def test_a_forbidden_change_is_shown_as_upstream_shows_it() -> None:
    old = existing(containers=[{"name": "c", "image": "busybox:1", "command": ["sleep", "3600"]}])
    _, errors = updated("pods", old, containers(command=["true"]))
    assert words(errors) == [MAIN + (
        '@@ -6,8 +6,7 @@\n    "Name": "c",\n    "Image": "busybox:1",\n    "Command": [\n-    "sleep",\n-    "3600"\n'
        '+    "true"\n    ],\n    "Args": null,\n    "WorkingDir": "",\n')]


def test_an_image_may_change_and_counts_as_a_generation() -> None:
    obj, errors = updated("pods", existing(), containers(image="busybox:2"))
    assert errors == []
    assert obj["metadata"]["generation"] == 2


def test_labels_may_change_and_do_not_count() -> None:
    obj, errors = updated("pods", existing(), {"metadata": {"labels": {"a": "b"}}})
    assert errors == []
    assert obj["metadata"]["generation"] == 1


def test_containers_may_not_be_added() -> None:
    _, errors = updated(
        "pods", existing(), {"spec": {"containers": [{"name": "c", "image": "a"}, {"name": "d", "image": "a"}]}}
    )
    assert words(errors) == ["spec.containers: Forbidden: pod updates may not add or remove containers"]


def test_tolerations_may_be_added_and_not_taken_away() -> None:
    old = existing(tolerations=[{"key": "a", "operator": "Exists"}])
    more = [*old["spec"]["tolerations"], {"key": "b", "operator": "Exists"}]
    assert updated("pods", old, {"spec": {"tolerations": more}})[1] == []
    assert words(updated("pods", old, {"spec": {"tolerations": []}})[1]) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]


def test_a_deadline_may_shrink_and_not_grow() -> None:
    old = existing(activeDeadlineSeconds=100)
    assert updated("pods", old, {"spec": {"activeDeadlineSeconds": 50}})[1] == []
    assert words(updated("pods", old, {"spec": {"activeDeadlineSeconds": 200}})[1]) == [
        "spec.activeDeadlineSeconds: Invalid value: 200: must be less than or equal to previous value"]


def test_scheduling_gates_may_only_go() -> None:
    old = existing(schedulingGates=[{"name": "a/b"}])
    assert updated("pods", old, {"spec": {"schedulingGates": []}})[1] == []
    assert words(updated("pods", old, {"spec": {"schedulingGates": [{"name": "c/d"}]}})[1]) == [
        "spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'c/d'"]


def test_status_changes_status_and_nothing_else() -> None:
    change = {
        "status": {"phase": "Running", "qosClass": "Guaranteed", "conditions": [{"type": "Ready", "status": "True"}]},
        "spec": {"nodeName": "elsewhere"},
    }
    obj, errors = updated("pods", existing(), change, subresource="status")
    assert errors == []
    assert "nodeName" not in obj["spec"]
    assert obj["status"] == {"phase": "Running", "qosClass": "BestEffort", "conditions": [
        {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}]}
    assert obj["metadata"]["generation"] == 1


def test_the_main_endpoint_leaves_status_alone() -> None:
    obj, _ = updated("pods", existing(), {"status": {"phase": "Running"}})
    assert obj["status"]["phase"] == "Pending"


def test_a_container_that_ended_for_good_stays_ended() -> None:
    old = existing(restartPolicy="Never")
    old["status"]["containerStatuses"] = [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]
    _, errors = updated("pods", old, {"status": {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}},
                        subresource="status")
    assert words(errors) == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]


def test_ephemeral_containers_are_added_through_their_endpoint() -> None:
    old = existing()
    debugger = {"name": "debug", "image": "busybox:1", "targetContainerName": "c", "stdin": True, "tty": True}
    obj, errors = updated("pods", old, {"spec": {"ephemeralContainers": [debugger], "nodeName": "no"}},
                          subresource="ephemeralcontainers")
    assert errors == []
    assert obj["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert "nodeName" not in obj["spec"]
    assert obj["metadata"]["generation"] == 2
    _, errors = updated("pods", obj, {"spec": {"ephemeralContainers": []}}, subresource="ephemeralcontainers")
    assert words(errors) == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "debug" may not be removed\n']


def test_ephemeral_containers_may_not_have_ports() -> None:
    bad = {"name": "debug", "image": "a", "ports": [{"containerPort": 1}]}
    _, errors = updated("pods", existing(), {"spec": {"ephemeralContainers": [bad]}}, subresource="ephemeralcontainers")
    assert words(errors) == ["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"]


def test_resize_changes_resources_and_keeps_the_quality_of_service() -> None:
    old = existing(containers=[{"name": "c", "image": "busybox:1", "resources": {"requests": {"cpu": "1"}}}])
    obj, errors = updated(
        "pods", old, containers(image="other", resources={"requests": {"cpu": "2"}}), subresource="resize"
    )
    assert errors == []
    assert obj["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "2"}}
    assert obj["spec"]["containers"][0]["image"] == "busybox:1"
    _, errors = updated("pods", old, containers(resources={}), subresource="resize")
    assert words(errors) == [
        'spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of resizing']
