"""Pods from admission to oblivion, with processes and time made up."""

import copy
from typing import Any

import pytest
from kubeletfakes import FakeExec, eventually

from minikubelet.volumes.errors import SetUpFailed

JSON = dict[str, Any]


def pod(name: str = "web", **spec: Any) -> JSON:
    containers = spec.pop("containers", [{"name": "c", "image": "app"}])
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1} | spec.pop("metadata", {})
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "status": {"phase": "Pending"},
            "spec": {"nodeName": "node-1", "restartPolicy": "Always", "containers": containers} | spec}


def status(node: Any, name: str = "web") -> JSON:
    return node.api.pod(name)["status"]


def state(node: Any, container: int = 0, kind: str = "containerStatuses") -> JSON:
    return status(node)[kind][container]["state"]


def condition(node: Any, kind: str, name: str = "web") -> JSON:
    return next(item for item in status(node, name)["conditions"] if item["type"] == kind)


async def started(node: Any, name: str = "c", count: int = 1) -> Any:
    await eventually(lambda: len(node.runtime.named(name)) >= count, f"{count} starts of {name}")
    return node.runtime.named(name)[count - 1]


async def test_a_pod_that_runs_is_reported_ready_with_address_and_container_id(node: Any) -> None:
    node.api.put_pod(pod())
    container = await started(node)
    await eventually(lambda: condition(node, "Ready")["status"] == "True")
    seen = status(node)
    assert (seen["phase"], seen["podIP"], seen["hostIP"]) == ("Running", "127.244.98.2", "127.0.98.1")
    assert seen["containerStatuses"][0]["containerID"] == container.id
    assert seen["containerStatuses"][0]["restartCount"] == 0
    assert seen["containerStatuses"][0]["started"] is True
    assert seen["observedGeneration"] == 1
    assert {item["type"]: item["status"] for item in seen["conditions"]} == dict.fromkeys(
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"], "True")
    assert all(item["observedGeneration"] == 1 for item in seen["conditions"])


async def test_pulled_created_and_started_are_told_as_events(node: Any) -> None:
    node.api.put_pod(pod())
    await eventually(lambda: len(node.api.events()) == 3)
    assert node.api.events() == [
        ("Pulled", 'Container image "app" already present on machine and can be accessed by the pod'),
        ("Created", "Container created"), ("Started", "Container started")]


async def test_the_first_restart_is_at_once_and_the_second_after_ten_seconds(node: Any) -> None:
    node.api.put_pod(pod())
    (await started(node)).end(1)
    (await started(node, count=2)).end(1)
    await eventually(lambda: state(node)["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=c pod=web_default(uid-web)"})
    assert status(node)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    await node.clock.advance(9.5)
    assert len(node.runtime.named("c")) == 2
    await node.clock.advance(1)
    (await started(node, count=3)).end(1)
    await eventually(lambda: "back-off 20s" in state(node)["waiting"]["message"])
    assert status(node)["containerStatuses"][0]["restartCount"] == 2
    assert status(node)["phase"] == "Running"


async def test_a_pod_that_never_restarts_ends_as_its_containers_did(node: Any) -> None:
    node.api.put_pod(pod("good", restartPolicy="Never"))
    (await started(node)).end(0)
    await eventually(lambda: status(node, "good")["phase"] == "Succeeded")
    assert condition(node, "Ready", "good")["reason"] == "PodCompleted"
    node.api.put_pod(pod("bad", restartPolicy="Never", containers=[{"name": "d", "image": "app"}]))
    (await started(node, "d")).end(3)
    await eventually(lambda: status(node, "bad")["phase"] == "Failed")
    ended = status(node, "bad")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")


async def test_on_failure_restarts_until_the_exit_code_is_zero(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="OnFailure"))
    (await started(node)).end(2)
    (await started(node, count=2)).end(0)
    await eventually(lambda: status(node)["phase"] == "Succeeded")
    assert status(node)["containerStatuses"][0]["restartCount"] == 1


async def test_a_container_out_of_memory_says_so(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="Never"))
    (await started(node)).end(137, 9, oom=True)
    ended = await eventually(lambda: state(node)["terminated"])
    assert (ended["reason"], ended["exitCode"], ended["signal"]) == ("OOMKilled", 137, 9)


async def test_what_cannot_be_started_is_a_start_error_and_backs_off(node: Any) -> None:
    node.runtime.failures = ["exec: \"x\": not found"] * 2
    node.api.put_pod(pod())
    waiting = await eventually(lambda: state(node).get("waiting", {}).get("reason") == "CrashLoopBackOff")
    last = status(node)["containerStatuses"][0]["lastState"]["terminated"]
    assert waiting and (last["reason"], last["exitCode"], last["message"]) == (
        "StartError", 128, 'exec: "x": not found')


async def test_init_containers_run_in_order_before_the_others(node: Any) -> None:
    node.api.put_pod(pod(initContainers=[{"name": "a", "image": "app"}, {"name": "b", "image": "app"}]))
    first = await started(node, "a")
    await eventually(lambda: state(node)["waiting"]["reason"] == "PodInitializing")
    assert condition(node, "Initialized")["message"] == "containers with incomplete status: [a b]"
    assert not node.runtime.named("b") and not node.runtime.named("c")
    first.end(0)
    (await started(node, "b")).end(0)
    await started(node)
    await eventually(lambda: condition(node, "Initialized")["status"] == "True")


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="Never", initContainers=[{"name": "a", "image": "app"}]))
    (await started(node, "a")).end(4)
    await eventually(lambda: status(node)["phase"] == "Failed")
    assert not node.runtime.named("c")


async def test_a_sidecar_starts_first_and_ends_after_the_containers(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="Never",
                         initContainers=[{"name": "side", "image": "app", "restartPolicy": "Always"}]))
    side, main = await started(node, "side"), await started(node)
    assert side.exit_status is None
    main.end(0)
    await eventually(lambda: status(node)["phase"] == "Succeeded")
    assert side.exit_status is not None and side.exit_status.code == 143


async def test_deletion_runs_pre_stop_then_stops_then_removes_the_pod(node: Any) -> None:
    lifecycle = {"preStop": {"exec": {"command": ["bye"]}}}
    node.api.put_pod(pod(containers=[{"name": "c", "image": "app", "lifecycle": lifecycle}]))
    container = await started(node)
    await eventually(lambda: status(node)["phase"] == "Running")
    node.api.delete_pod("web", 30)
    await eventually(lambda: ("/api/v1/namespaces/default/pods", "web") not in node.api.objects)
    assert container.execs == [("bye",)]
    assert container.stops == [30.0]
    await eventually(lambda: ("Killing", "Stopping container c") in node.api.events())
    assert node.volumes.torn_down == 1 and not node.runtime.sandboxes
    await eventually(lambda: node.workers.find("default", "web") is None)
    told: JSON = {}
    for method, path, body in node.api.requests:
        if method == "PATCH" and path.endswith("/web/status"):
            told |= body["status"]
    assert told["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    assert told["phase"] == "Failed"


async def test_the_final_delete_names_the_uid_and_no_grace(node: Any) -> None:
    node.api.put_pod(pod())
    await started(node)
    node.api.delete_pod("web", 0)
    body = await eventually(lambda: next(
        (body for method, _, body in node.api.requests if method == "DELETE"), None))
    assert (body["gracePeriodSeconds"], body["preconditions"]) == (0, {"uid": "uid-web"})


async def test_a_pod_that_vanishes_from_the_api_server_is_stopped(node: Any) -> None:
    node.api.put_pod(pod())
    container = await started(node)
    node.api.remove("/api/v1/namespaces/default/pods", "web")
    await eventually(lambda: container.exit_status is not None)
    await eventually(lambda: node.workers.find("default", "web") is None)


async def test_a_shorter_grace_cuts_a_long_one(node: Any) -> None:
    node.api.put_pod(pod())
    container = await started(node)
    container.ignores_term = True
    node.api.delete_pod("web", 300)
    await eventually(lambda: container.stops == [300.0])
    node.api.delete_pod("web", 0)
    await eventually(lambda: container.exit_status is not None)
    assert container.stops == [300.0, 0.0]


async def test_two_pods_get_two_addresses_and_an_ended_one_gives_its_address_back(node: Any) -> None:
    node.api.put_pod(pod("one"))
    node.api.put_pod(pod("two"))
    await eventually(lambda: {status(node, "one").get("podIP"), status(node, "two").get("podIP")} ==
                     {"127.244.98.2", "127.244.98.3"})
    node.api.delete_pod("one", 0)
    await eventually(lambda: ("/api/v1/namespaces/default/pods", "one") not in node.api.objects)
    await eventually(lambda: node.workers.find("default", "one") is None)
    assert node.around.addresses.allocate("other", "127.244.98.2") == "127.244.98.2"


async def test_a_host_network_pod_has_the_nodes_address(node: Any) -> None:
    node.api.put_pod(pod(hostNetwork=True))
    await eventually(lambda: status(node).get("podIP") == "127.0.98.1")


async def test_a_missing_image_is_err_image_pull_then_back_off(node: Any) -> None:
    node.api.put_pod(pod(containers=[{"name": "c", "image": "missing"}]))
    await eventually(lambda: state(node)["waiting"] == {"reason": "ErrImagePull", "message": "not here"})
    await node.clock.advance(2.1)
    await eventually(lambda: state(node)["waiting"]["reason"] == "ImagePullBackOff")
    assert state(node)["waiting"]["message"] == 'Back-off pulling image "missing": ErrImagePull: not here'
    node.images.missing.clear()
    await node.clock.advance(10)
    await started(node)


async def test_an_image_that_may_not_be_pulled_is_err_image_never_pull(node: Any) -> None:
    node.api.put_pod(pod(containers=[{"name": "c", "image": "missing", "imagePullPolicy": "Never"}]))
    await eventually(lambda: state(node)["waiting"]["reason"] == "ErrImageNeverPull")
    assert state(node)["waiting"]["message"] == 'Container image "missing" is not present with pull policy of Never'


async def test_an_invalid_image_name_says_so(node: Any) -> None:
    node.api.put_pod(pod(containers=[{"name": "c", "image": "BAD"}]))
    await eventually(lambda: state(node)["waiting"]["reason"] == "InvalidImageName")


@pytest.mark.parametrize(("env", "words"), [
    ({"configMapKeyRef": {"name": "cm", "key": "k"}}, 'configmap "cm" not found'),
    ({"secretKeyRef": {"name": "s", "key": "k"}}, 'secret "s" not found'),
])
async def test_a_missing_reference_is_a_config_error_until_it_is_there(node: Any, env: JSON, words: str) -> None:
    node.api.put_pod(pod(containers=[{"name": "c", "image": "app", "env": [{"name": "X", "valueFrom": env}]}]))
    await eventually(lambda: state(node)["waiting"] == {"reason": "CreateContainerConfigError", "message": words})
    await eventually(lambda: ("Failed", f"Error: {words}") in node.api.events())
    if "configMapKeyRef" in env:
        node.api.put("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "cm"}, "data": {"k": "v"}})
    else:
        node.api.put("/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "data": {"k": "dg=="}})
    container = await started(node)
    assert dict(container.spec.env)["X"] == "v"


async def test_service_variables_reach_the_container(node: Any) -> None:
    node.api.put("/api/v1/namespaces/default/services", {
        "metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "127.96.0.1", "ports": [
            {"name": "https", "port": 443}]}})
    await eventually(lambda: node.around.services.objects)
    node.api.put_pod(pod())
    environment = dict((await started(node)).spec.env)
    assert environment["KUBERNETES_SERVICE_HOST"] == "127.96.0.1"
    assert environment["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert environment["KUBERNETES_PORT_443_TCP"] == "tcp://127.96.0.1:443"


async def test_a_volume_that_fails_is_an_event_and_is_tried_again(node: Any) -> None:
    node.volumes.failures = [SetUpFailed("v", 'configmap "cm" not found')]
    node.api.put_pod(pod())
    words = 'MountVolume.SetUp failed for volume "v" : configmap "cm" not found'
    await eventually(lambda: ("FailedMount", words) in node.api.events())
    assert not node.runtime.started
    await node.clock.advance(1)
    await started(node)


async def test_the_active_deadline_fails_the_pod(node: Any) -> None:
    node.api.put_pod(pod(activeDeadlineSeconds=5))
    container = await started(node)
    await node.clock.advance(6)
    await eventually(lambda: status(node)["phase"] == "Failed")
    assert (status(node)["reason"], status(node)["message"]) == (
        "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
    assert container.exit_status is not None


async def test_a_pod_that_does_not_fit_is_rejected_in_upstreams_words(node: Any) -> None:
    big = [{"name": "c", "image": "app", "resources": {"requests": {"cpu": "3"}}}]
    node.api.put_pod(pod(containers=big))
    await eventually(lambda: status(node)["phase"] == "Failed")
    assert (status(node)["reason"], status(node)["message"]) == (
        "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000")
    assert not node.runtime.started


async def test_a_pod_for_other_nodes_is_rejected(node: Any) -> None:
    node.api.put_pod(pod(nodeSelector={"disk": "tape"}))
    await eventually(lambda: status(node).get("reason") == "NodeAffinity")


async def test_liveness_kills_after_three_failures_and_the_container_restarts(node: Any) -> None:
    node.runtime.on_exec = lambda argv: FakeExec(1, b"sick")
    node.api.put_pod(pod(containers=[{"name": "c", "image": "app", "livenessProbe": {
        "exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 3}}]))
    container = await started(node)
    for _ in range(3):
        await node.clock.advance(1)
    await started(node, count=2)
    assert container.exit_status.code == 143
    await eventually(lambda: ("Killing", "Container c failed liveness probe, will be restarted")
                     in node.api.events())
    assert ("Unhealthy", "Liveness probe failed: sick") in node.api.events()


async def test_readiness_decides_the_ready_condition_and_kills_nothing(node: Any) -> None:
    node.runtime.on_exec = lambda argv: FakeExec(1, b"")
    node.api.put_pod(pod(containers=[{"name": "c", "image": "app", "readinessProbe": {
        "exec": {"command": ["check"]}, "periodSeconds": 1}}]))
    container = await started(node)
    await eventually(lambda: status(node)["phase"] == "Running")
    assert condition(node, "Ready")["message"] == "containers with unready status: [c]"
    node.runtime.on_exec = lambda argv: FakeExec(0, b"")
    await node.clock.advance(1)
    await eventually(lambda: condition(node, "Ready")["status"] == "True")
    assert container.exit_status is None


async def test_a_startup_probe_holds_the_others_back(node: Any) -> None:
    answers = {"up": 1}
    node.runtime.on_exec = lambda argv: FakeExec(answers["up"], b"")
    node.api.put_pod(pod(containers=[{"name": "c", "image": "app", "startupProbe": {
        "exec": {"command": ["up"]}, "periodSeconds": 1, "failureThreshold": 30}, "livenessProbe": {
        "exec": {"command": ["live"]}, "periodSeconds": 1}}]))
    container = await started(node)
    await node.clock.advance(3)
    assert set(container.execs) == {("up",)}
    assert status(node)["containerStatuses"][0]["started"] is False
    answers["up"] = 0
    await node.clock.advance(1)
    await eventually(lambda: ("live",) in container.execs)
    await eventually(lambda: status(node)["containerStatuses"][0]["started"] is True)


async def test_a_failed_post_start_hook_kills_the_container(node: Any) -> None:
    node.runtime.on_exec = lambda argv: FakeExec(1, b"no")
    node.api.put_pod(pod(restartPolicy="Never", containers=[{"name": "c", "image": "app", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}}}]))
    await eventually(lambda: status(node)["phase"] == "Failed")
    await eventually(lambda: "FailedPostStartHook" in [reason for reason, _ in node.api.events()])


async def test_readiness_gates_are_part_of_ready(node: Any) -> None:
    node.api.put_pod(pod(readinessGates=[{"conditionType": "mine"}]))
    await eventually(lambda: condition(node, "ContainersReady")["status"] == "True")
    assert condition(node, "Ready")["reason"] == "ReadinessGatesNotReady"
    seen = copy.deepcopy(node.api.pod("web"))
    seen["status"]["conditions"].append({"type": "mine", "status": "True"})
    node.api.put_pod(seen)
    await eventually(lambda: condition(node, "Ready")["status"] == "True")
    assert condition(node, "mine")["status"] == "True"


async def test_an_ephemeral_container_runs_once_beside_the_others(node: Any) -> None:
    node.api.put_pod(pod())
    main = await started(node)
    changed = copy.deepcopy(node.api.pod("web"))
    changed["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "app", "targetContainerName": "c"}]
    node.api.put_pod(changed)
    debug = await started(node, "debug")
    assert debug.spec.target_container_id == main.id
    debug.end(1)
    ended = await eventually(lambda: state(node, kind="ephemeralContainerStatuses")["terminated"])
    assert ended["exitCode"] == 1 and len(node.runtime.named("debug")) == 1 and main.exit_status is None


async def test_another_image_restarts_the_container_whatever_the_policy(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="Never"))
    await started(node)
    await eventually(lambda: status(node)["phase"] == "Running")
    changed = copy.deepcopy(node.api.pod("web"))
    changed["spec"]["containers"][0]["image"] = "app2"
    node.api.put_pod(changed)
    await started(node, count=2)
    await eventually(lambda: status(node)["containerStatuses"][0]["image"] == "app2")
    assert status(node)["containerStatuses"][0]["restartCount"] == 1


async def test_a_container_lost_with_an_earlier_kubelet_is_started_anew_and_counted(node: Any) -> None:
    known = pod()
    known["status"] = {"phase": "Running", "startTime": "2025-12-31T23:00:00Z", "podIP": "127.244.98.9",
                       "containerStatuses": [{"name": "c", "containerID": "miniplane://old", "restartCount": 2,
                                              "state": {"running": {"startedAt": "2025-12-31T23:00:00Z"}}}]}
    node.api.put_pod(known)
    container = await started(node)
    assert container.spec.attempt == 3
    await eventually(lambda: status(node)["containerStatuses"][0]["restartCount"] == 3)
    last = status(node)["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("ContainerStatusUnknown", 137)
    assert (status(node)["podIP"], status(node)["startTime"]) == ("127.244.98.9", "2025-12-31T23:00:00Z")


async def test_a_pod_that_ended_before_is_not_run_again(node: Any) -> None:
    done = pod(restartPolicy="Never")
    done["status"] = {"phase": "Succeeded"}
    node.api.put_pod(done)
    await eventually(lambda: node.workers.find("default", "web"))
    await node.clock.advance(1)
    assert not node.runtime.started
    node.api.delete_pod("web", 0)
    await eventually(lambda: ("/api/v1/namespaces/default/pods", "web") not in node.api.objects)


async def test_a_status_that_could_not_be_sent_is_sent_later(node: Any) -> None:
    node.api.fail_next = [("/web/status", 500)] * 3
    node.api.put_pod(pod())
    await started(node)
    for _ in range(6):
        await node.clock.advance(2)
    await eventually(lambda: status(node)["phase"] == "Running")


async def test_the_termination_message_is_read_from_its_file(node: Any) -> None:
    node.api.put_pod(pod(restartPolicy="Never"))
    container = await started(node)
    container.spec.termination_message_file.write_text("last words")
    container.end(1)
    ended = await eventually(lambda: state(node)["terminated"])
    assert ended["message"] == "last words"


async def test_the_end_of_the_log_stands_in_for_a_missing_message_only_on_errors(node: Any) -> None:
    spec = {"image": "app", "terminationMessagePolicy": "FallbackToLogsOnError"}
    node.api.put_pod(pod(restartPolicy="Never", containers=[spec | {"name": "bad"}, spec | {"name": "good"}]))
    for name, code in (("bad", 1), ("good", 0)):
        container = await started(node, name)
        container.spec.log_path.write_text("2026-01-01T00:00:00.000000000Z stderr F it broke\n")
        container.end(code)
    await eventually(lambda: status(node)["phase"] == "Failed")
    bad, good = status(node)["containerStatuses"]
    assert bad["state"]["terminated"]["message"] == "it broke\n"
    assert "message" not in good["state"]["terminated"]


async def test_a_pod_that_never_got_its_volumes_can_be_deleted(node: Any) -> None:
    node.volumes.failures = [SetUpFailed("v", "never")] * 100
    node.api.put_pod(pod())
    await eventually(lambda: "FailedMount" in [reason for reason, _ in node.api.events()])
    node.api.delete_pod("web", 30)
    await eventually(lambda: ("/api/v1/namespaces/default/pods", "web") not in node.api.objects)
    assert not node.runtime.started


async def test_a_defect_in_one_pod_takes_no_other_along_and_the_pod_is_tried_again(node: Any) -> None:
    node.volumes.failures = [ZeroDivisionError("a bug")]
    node.api.put_pod(pod("broken"))
    await eventually(lambda: not node.volumes.failures)
    node.api.put_pod(pod("fine", containers=[{"name": "d", "image": "app"}]))
    await started(node, "d")
    assert not node.runtime.named("c")
    for _ in range(4):
        await node.clock.advance(4)
    await started(node)


async def test_a_namesake_made_while_the_old_pod_ends_is_another_pod(node: Any) -> None:
    node.api.put_pod(pod())
    old = await started(node)
    old.ignores_term = True
    node.api.remove("/api/v1/namespaces/default/pods", "web")
    await eventually(lambda: old.stops)
    node.api.put_pod(pod(metadata={"uid": "uid-second"}))
    new = await started(node, count=2)
    assert old.exit_status is None and new.spec.pod.uid == "uid-second"
    await node.clock.advance(31)
    await eventually(lambda: old.exit_status)
    assert new.exit_status is None and status(node)["phase"] == "Running"
