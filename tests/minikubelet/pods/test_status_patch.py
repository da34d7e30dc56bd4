"""Statuses, patches and the small pure tables around them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubeletstub import merged

from minikubelet.pods.addresses import OutOfAddresses, PodAddresses
from minikubelet.pods.admission import admit
from minikubelet.pods.backoff import Backoff, as_go_duration
from minikubelet.pods.grpchealth import GRPCError, HealthCall, Serving, request
from minikubelet.pods.launch import is_restarted
from minikubelet.pods.podref import ContainerKind
from minikubelet.pods.podstate import TRANSITIONS, IllegalMove, PodEvent, PodState, next_state
from minikubelet.pods.probes import Schedule, Tally
from minikubelet.pods.statuspatch import status_patch

JSON = dict[str, Any]

conditions = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from("ABC"), "status": st.sampled_from(["True", "False"])},
                          optional={"reason": st.sampled_from("xy"), "message": st.sampled_from("mn")}),
    unique_by=lambda item: item["type"])
statuses = st.fixed_dictionaries({}, optional={
    "phase": st.sampled_from(["Pending", "Running"]), "reason": st.sampled_from("rs"), "conditions": conditions,
    "podIPs": st.lists(st.fixed_dictionaries({"ip": st.sampled_from(["1", "2"])}), unique_by=lambda item: item["ip"]),
    "containerStatuses": st.lists(st.fixed_dictionaries({"name": st.just("c"), "restartCount": st.integers(0, 2)}),
                                  max_size=1)})


@given(statuses, statuses)
def test_a_patch_turns_the_old_status_into_the_new_one(old: JSON, new: JSON) -> None:
    patch = status_patch(old, new)
    result = merged(copy.deepcopy(old), patch or {})

    def shape(status: JSON) -> JSON:
        return {key: sorted(value, key=lambda item: sorted(item.items())) if key in ("conditions", "podIPs") else value
                for key, value in status.items() if value != []}

    assert shape(result) == shape(new)


@given(statuses)
def test_nothing_changed_means_no_patch(status: JSON) -> None:
    assert status_patch(status, copy.deepcopy(status)) is None


def test_every_move_the_table_lacks_is_refused_by_name() -> None:
    for state in PodState:
        for event in PodEvent:
            if (state, event) in TRANSITIONS:
                assert next_state(state, event) is TRANSITIONS[state, event]
            else:
                with pytest.raises(IllegalMove, match=f"pod is {state.value}"):
                    next_state(state, event)


def test_back_off_doubles_to_the_ceiling_and_is_forgotten_after_a_long_run() -> None:
    backoff, now, waits = Backoff(ceiling=40.0), 0.0, []
    for _ in range(5):
        waits.append(backoff.wait_after(now))
        now += waits[-1]
        backoff.attempt(now, now)
    assert waits == [0.0, 10.0, 20.0, 40.0, 40.0]
    assert backoff.wait_after(now + 81) == 0.0


@pytest.mark.parametrize(("seconds", "words"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")])
def test_back_offs_are_printed_as_go_does(seconds: float, words: str) -> None:
    assert as_go_duration(seconds) == words


@pytest.mark.parametrize(("kind", "container", "policy", "code", "again"), [
    (ContainerKind.MAIN, {}, "Always", 0, True), (ContainerKind.MAIN, {}, "Never", 1, False),
    (ContainerKind.MAIN, {}, "OnFailure", 0, False), (ContainerKind.MAIN, {}, "OnFailure", 1, True),
    (ContainerKind.INIT, {}, "Always", 0, False), (ContainerKind.INIT, {}, "Always", 1, True),
    (ContainerKind.SIDECAR, {}, "Never", 0, True), (ContainerKind.EPHEMERAL, {}, "Always", 1, False),
    (ContainerKind.MAIN, {"restartPolicy": "Never"}, "Always", 1, False),
    (ContainerKind.MAIN, {"restartPolicy": "Never", "restartPolicyRules": [
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}, "Always", 42, True),
    (ContainerKind.MAIN, {"restartPolicy": "Never", "restartPolicyRules": [
        {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]}, "Always", 42, False),
])
def test_who_is_restarted(kind: ContainerKind, container: JSON, policy: str, code: int, again: bool) -> None:
    assert is_restarted(kind, container, policy, code) is again


def test_thresholds_count_results_in_a_row() -> None:
    tally = Tally(Schedule.of({"failureThreshold": 2, "successThreshold": 2}))
    assert [tally.add(ok) for ok in (True, False, True, True, False, True, False, False)] == [
        None, None, None, True, True, True, True, False]


def test_addresses_are_unique_and_end() -> None:
    pool = PodAddresses("10.0.0.0/29", "10.9.9.9")
    given_out = [pool.allocate(f"pod-{number}") for number in range(5)]
    assert given_out == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    assert pool.allocate("pod-0") == "10.0.0.2"
    with pytest.raises(OutOfAddresses):
        pool.allocate("one too many")
    pool.release("pod-3")
    assert pool.allocate("next") == "10.0.0.5"


@pytest.mark.parametrize("wanted", ["", "junk", "192.168.0.1", "10.0.0.2"])
def test_an_address_that_is_not_ours_or_taken_is_not_given_out_again(wanted: str) -> None:
    pool = PodAddresses("10.0.0.0/24", "10.9.9.9")
    pool.allocate("first")
    assert pool.allocate("second", wanted) == "10.0.0.3"


NODE: JSON = {"metadata": {"name": "n1", "labels": {"zone": "a", "size": "3"}},
              "spec": {"taints": [{"key": "evil", "value": "x", "effect": "NoExecute"},
                                  {"key": "soft", "effect": "NoSchedule"}]},
              "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}}
TOLERANT = [{"key": "evil", "operator": "Exists"}]


def wish(**spec: Any) -> JSON:
    return {"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": TOLERANT} | spec}


def affinity(**expression: Any) -> JSON:
    term = {"matchExpressions": [expression]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(("pod", "reason"), [
    (wish(), None),
    (wish(tolerations=[]), "TaintToleration"),
    (wish(tolerations=[{"key": "evil", "value": "y"}]), "TaintToleration"),
    (wish(tolerations=[{"operator": "Exists"}]), None),
    (wish(nodeSelector={"zone": "b"}), "NodeAffinity"),
    (wish(affinity=affinity(key="zone", operator="In", values=["a", "b"])), None),
    (wish(affinity=affinity(key="zone", operator="NotIn", values=["a"])), "NodeAffinity"),
    (wish(affinity=affinity(key="size", operator="Gt", values=["2"])), None),
    (wish(affinity=affinity(key="size", operator="Lt", values=["2"])), "NodeAffinity"),
    (wish(affinity=affinity(key="none", operator="DoesNotExist")), None),
    (wish(containers=[{"name": "c", "resources": {"requests": {"memory": "2Gi"}}}]), "OutOfmemory"),
    (wish(containers=[{"name": "c", "resources": {"limits": {"cpu": "600m"}}}]), "OutOfcpu"),
    (wish(initContainers=[{"name": "i", "resources": {"requests": {"cpu": "600m"}}}]), "OutOfcpu"),
    (wish(containers=[{"name": "c", "resources": {"requests": {"cpu": "junk"}}}]), "UnexpectedAdmissionError"),
])
def test_what_this_node_takes(pod: JSON, reason: str | None) -> None:
    other = wish(containers=[{"name": "c", "resources": {"requests": {"cpu": "500m"}}}])
    rejection = admit(pod, NODE, [other])
    assert (rejection.reason if rejection else None) == reason


def test_more_pods_than_the_node_takes_are_out_of_pods() -> None:
    rejection = admit(wish(), NODE, [wish(), wish()])
    assert rejection is not None and rejection.reason == "OutOfpods"


# gRPC health


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def answer(status: int) -> bytes:
    message = bytes((8, status)) if status else b""
    return frame(4, 0, b"", 0) + frame(1, 4, b"\x88") + frame(0, 0, b"\0" + len(message).to_bytes(4, "big") + message)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("status", list(Serving))
def test_a_health_answer_is_understood_in_any_pieces(status: Serving, chunk: int) -> None:
    call, data, sent = HealthCall(), answer(status.value), b""
    for start in range(0, len(data), chunk):
        sent += call.feed(data[start:start + chunk])
    assert call.verdict is status
    assert sent == frame(4, 1, b"", 0)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(1, 5, b"\x88"), frame(7, 0, bytes(8), 0)])
def test_a_peer_without_grpc_health_is_an_error(data: bytes) -> None:
    call = HealthCall()
    with pytest.raises(GRPCError):
        call.feed(data)
        call.feed_eof()


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    call = HealthCall()
    try:
        call.feed(data)
        call.feed_eof()
    except GRPCError:
        pass


def test_the_request_carries_the_service_name() -> None:
    assert request("h:1", "my.service").endswith(b"\x0a\x0amy.service")
    assert request("h:1", "").startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
