"""ConfigMaps, Secrets, Namespaces, Nodes, Events, volumes, quotas, and the smaller groups."""

from base64 import b64encode
from typing import Any

import pytest

from miniapiserver.resources.autoscaling import from_v2, to_v2
from miniapiserver.resources.certificates import condition_text
from miniapiserver.resources.events import from_core, new_fields, to_core
from tests.miniapiserver.resources.writes import NOW, created, message, row_of, updated, words

RBAC = "rbac.authorization.k8s.io"
CSR = "certificates.k8s.io"


def test_string_data_of_a_secret_becomes_data() -> None:
    obj, errors = created("secrets", {"metadata": {"name": "s"}, "stringData": {"p": "hello"}})
    assert errors == []
    assert (obj["data"], obj["type"], "stringData" in obj) == ({"p": "aGVsbG8="}, "Opaque", False)


def test_a_secrets_type_is_immutable() -> None:
    old, _ = created("secrets", {"metadata": {"name": "s"}, "stringData": {"p": "hello"}})
    _, errors = updated("secrets", old, {"type": "kubernetes.io/basic-auth", "stringData": {"username": "u"}})
    assert message("secrets", errors, "s") == (
        'Secret "s" is invalid: type: Invalid value: "kubernetes.io/basic-auth": field is immutable')


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("kubernetes.io/tls", ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        ("kubernetes.io/ssh-auth", ["data[%s][ssh-privatekey]: Required value"]),
        ("kubernetes.io/dockerconfigjson", ["data[.dockerconfigjson]: Required value"]),
        ("kubernetes.io/basic-auth", ["data[%s][username]: Required value", "data[%s][password]: Required value"]),
        (
            "kubernetes.io/service-account-token",
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
    ],
)
def test_typed_secrets_need_their_keys(kind: str, missing: list[str]) -> None:
    assert words(created("secrets", {"metadata": {"name": "s"}, "type": kind})[1]) == missing


def test_an_immutable_config_map_stays_as_it_is() -> None:
    old, _ = created("configmaps", {"metadata": {"name": "a"}, "data": {"k": "v"}, "immutable": True})
    _, errors = updated("configmaps", old, {"data": {"k": "w"}})
    assert words(errors) == ["data: Forbidden: field is immutable when `immutable` is set"]
    _, errors = updated("configmaps", old, {"immutable": False})
    assert words(errors) == ["immutable: Forbidden: field is immutable when `immutable` is set"]


def test_keys_and_size_of_a_config_map() -> None:
    _, errors = created("configmaps", {"metadata": {"name": "a"}, "data": {"a b": "v"}})
    assert words(errors)[0].startswith('data[a b]: Invalid value: "a b": a valid config key must consist of')
    _, errors = created("configmaps", {"metadata": {"name": "a"}, "data": {"a": "x" * (1 << 20), "b": "y"}})
    assert words(errors) == ["[]: Too long: may not be more than 1048576 bytes"]


def test_a_namespace_is_labelled_and_finalized() -> None:
    obj, errors = created("namespaces", {"metadata": {"name": "golden"}})
    assert errors == []
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "golden"}
    assert (obj["spec"], obj["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


def test_finalizers_of_a_namespace_change_only_through_finalize() -> None:
    old, _ = created("namespaces", {"metadata": {"name": "golden"}})
    obj, _ = updated("namespaces", old, {"spec": {"finalizers": []}})
    assert obj["spec"] == {"finalizers": ["kubernetes"]}
    obj, errors = updated("namespaces", old, {"spec": {"finalizers": []}}, subresource="finalize")
    assert errors == []
    assert obj["spec"] == {"finalizers": []}


def test_a_namespace_is_terminating_only_while_it_is_deleted() -> None:
    old, _ = created("namespaces", {"metadata": {"name": "golden"}})
    _, errors = updated("namespaces", old, {"status": {"phase": "Terminating"}}, subresource="status")
    assert words(errors) == [
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]


def test_a_node_keeps_the_status_it_registers_with() -> None:
    obj, errors = created("nodes", {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}})
    assert errors == []
    assert obj["status"]["capacity"] == obj["status"]["allocatable"] == {"cpu": "2"}
    assert obj["status"]["nodeInfo"]["kubeletVersion"] == ""
    assert updated("nodes", obj, {"status": {"capacity": {"cpu": "9"}}})[0]["status"]["capacity"] == {"cpu": "2"}
    assert updated("nodes", obj, {"status": {"capacity": {"cpu": "9"}}}, subresource="status")[0]["status"][
        "capacity"
    ] == {"cpu": "9"}


def test_taints_are_unique_and_have_an_effect() -> None:
    taints = [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b"}]
    _, errors = created("nodes", {"metadata": {"name": "n"}, "spec": {"taints": taints}})
    assert words(errors)[0].startswith("metadata.taints[1]: Duplicate value: ")
    assert words(errors)[1] == "metadata.taints[2].effect: Required value"


def test_node_table() -> None:
    node = {"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                                                        "addresses": [{"type": "InternalIP", "address": "127.0.10.1"}]}}
    assert row_of("nodes").table.cells(node, 0) == [
        "n",
        "Ready,SchedulingDisabled",
        "edge,worker",
        "<unknown>",
        "",
        "127.0.10.1",
        "<none>",
        "<unknown>",
        "<unknown>",
        "<unknown>",
    ]


def core_event(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "e", "namespace": "golden"}, "message": "hi", "reason": "Why", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "golden"}} | fields


def test_an_event_lives_where_its_object_lives() -> None:
    assert created("events", core_event())[1] == []
    _, errors = created("events", core_event(involvedObject={"kind": "Pod", "name": "p", "namespace": "other"}))
    assert words(errors) == ['involvedObject.namespace: Invalid value: "other": does not match event.namespace']


def test_an_event_with_a_time_of_its_own_says_who_reports() -> None:
    _, errors = created("events", core_event(eventTime="2026-01-01T00:00:00.000000Z", reason=""))
    assert words(errors) == [
        f"{key}: Required value" for key in ("reportingController", "reportingInstance", "action", "reason")
    ]


def test_events_translate_between_their_groups() -> None:
    new = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"}, "note": "hi",
           "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "a/b", "deprecatedCount": 2}
    core = to_core(new)
    assert (core["message"], core["involvedObject"]["name"], core["reportingComponent"], core["count"]) == (
        "hi",
        "p",
        "a/b",
        2,
    )
    assert from_core(core) == new
    assert new_fields(new)["regarding.name"] == "p"


def test_event_table() -> None:
    event = core_event(source={"component": "kubelet", "host": "n1"}, count=3, firstTimestamp="1970-01-01T00:00:00Z",
                       lastTimestamp="1970-01-01T00:00:30Z")
    assert row_of("events").table.cells(event, 60.0) == [
        "30s", "Normal", "Why", "pod/p", "", "kubelet, n1", "hi", "60s", 3, "e"]


def test_a_claim_asks_for_storage_and_does_not_change() -> None:
    assert words(created("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": {}})[1]) == [
        "spec.accessModes: Required value: at least 1 access mode is required",
        "spec.resources[storage]: Required value",
    ]
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    old, errors = created("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
    assert errors == []
    assert (old["spec"]["volumeMode"], old["status"]) == ("Filesystem", {"phase": "Pending"})
    assert updated("persistentvolumeclaims", old, {"spec": {"volumeName": "v"}})[1] == []
    assert updated("persistentvolumeclaims", old, {"spec": {"accessModes": ["ReadOnlyMany"]}})[1] != []


def test_a_volume_remembers_when_its_phase_changed() -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
    old, errors = created("persistentvolumes", {"metadata": {"name": "v"}, "spec": spec})
    assert errors == []
    assert old["status"] == {"phase": "Pending", "lastPhaseTransitionTime": NOW}
    old["status"]["lastPhaseTransitionTime"] = "2020-01-01T00:00:00Z"
    obj, errors = updated("persistentvolumes", old, {"status": {"phase": "Available"}}, subresource="status")
    assert errors == []
    assert obj["status"] == {"phase": "Available", "lastPhaseTransitionTime": NOW}


def test_volume_tables() -> None:
    volume = {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
              "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}, "status": {"phase": "Available"}}
    assert row_of("persistentvolumes").table.cells(volume, 0) == [
        "v", "1Gi", "RWO", "Retain", "Available", "", "", "<unset>", "", "<unknown>", "Filesystem"]


def test_a_role_rule_needs_groups_and_resources() -> None:
    _, errors = created("roles", {"metadata": {"name": "r2"}, "rules": [{"verbs": ["get"]}]}, RBAC)
    assert message("roles", errors, "r2", RBAC) == (
        'Role.rbac.authorization.k8s.io "r2" is invalid: [rules[0].apiGroups: Required value: '
        'resource rules must supply at '
        "least one api group, rules[0].resources: Required value: resource rules must supply at least one resource]"
    )
    assert (
        created(
            "clusterroles",
            {"metadata": {"name": "a:b"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]},
            RBAC,
        )[1]
        == []
    )


def test_a_role_binding_keeps_its_role() -> None:
    body = {
        "metadata": {"name": "rb"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}],
    }
    old, errors = created("rolebindings", body, RBAC)
    assert errors == []
    assert old["roleRef"]["apiGroup"] == old["subjects"][0]["apiGroup"] == RBAC
    _, errors = updated("rolebindings", old, {"roleRef": {"name": "other"}}, RBAC)
    assert words(errors)[0].endswith("cannot change roleRef")


def test_garbage_in_a_certificate_request() -> None:
    body = {"metadata": {"name": "g"}, "spec": {"request": "Z2FyYmFnZQ==", "usages": ["client auth"]}}
    _, errors = created("certificatesigningrequests", body, CSR)
    assert message("certificatesigningrequests", errors, "g", CSR) == (
        'CertificateSigningRequest.certificates.k8s.io "g" is invalid: [spec.request: Invalid '
        'value: "Z2FyYmFnZQ==": PEM block '
        "type must be CERTIFICATE REQUEST, spec.signerName: Required value]"
    )


def certificate_request() -> dict[str, Any]:
    pem = b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n").decode()
    spec = {"request": pem, "usages": ["client auth"], "signerName": "example.com/s", "username": "forged"}
    obj, errors = created(
        "certificatesigningrequests", {"metadata": {"name": "g"}, "spec": spec}, CSR, user="system:node:a"
    )
    assert errors == []
    assert obj["spec"]["username"] == "system:node:a"
    return obj


def test_approval_decides_and_cannot_be_taken_back() -> None:
    approved = {"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "no"}}
    obj, errors = updated("certificatesigningrequests", certificate_request(), approved, CSR, subresource="approval")
    assert errors == []
    assert obj["status"] == {
        "conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": NOW, "lastTransitionTime": NOW}]
    }
    assert condition_text(obj["status"]) == "Approved"
    _, errors = updated("certificatesigningrequests", obj, {"status": {"conditions": []}}, CSR, subresource="approval")
    assert words(errors) == ['status.conditions: Forbidden: updates may not remove a condition of type "Approved"']
    both = [*obj["status"]["conditions"], {"type": "Denied", "status": "True"}]
    _, errors = updated(
        "certificatesigningrequests", obj, {"status": {"conditions": both}}, CSR, subresource="approval"
    )
    assert words(errors)[0].endswith("Approved and Denied conditions are mutually exclusive")


def test_status_of_a_certificate_request_signs_once_and_does_not_approve() -> None:
    pem = b64encode(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").decode()
    change = {"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": pem}}
    obj, errors = updated("certificatesigningrequests", certificate_request(), change, CSR, subresource="status")
    assert errors == []
    assert obj["status"] == {"certificate": pem}
    assert condition_text(obj["status"]) == "Pending,Issued"
    _, errors = updated(
        "certificatesigningrequests", obj, {"status": {"certificate": "AA=="}}, CSR, subresource="status"
    )
    assert words(errors) == ["status.certificate: Forbidden: updates may not modify existing certificate content"]


def test_autoscalers_translate_between_versions() -> None:
    v1 = {
        "metadata": {"name": "h"},
        "spec": {
            "maxReplicas": 3,
            "minReplicas": 1,
            "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"},
        },
        "status": {"currentReplicas": 1, "desiredReplicas": 1},
    }
    v2 = to_v2(v1)
    assert v2["spec"]["metrics"] == [{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]
    assert from_v2(v2)["spec"] == v1["spec"]
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    }
    back = to_v2(from_v2(v2 | {"spec": v2["spec"] | {"metrics": [*v2["spec"]["metrics"], memory]}}))
    assert back["spec"]["metrics"][1] == memory
    assert row_of("horizontalpodautoscalers", "autoscaling").table.cells(v2, 0)[:3] == [
        "h", "Deployment/d", "cpu: <unknown>/50%"]


def test_a_lease_lasts() -> None:
    _, errors = created(
        "leases", {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}}, "coordination.k8s.io"
    )
    assert words(errors) == ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]


def test_a_storage_class_table_marks_the_default() -> None:
    obj, errors = created("storageclasses", {"metadata": {"name": "s", "annotations": {
        "storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "a/b"}, "storage.k8s.io")
    assert errors == []
    assert row_of("storageclasses", "storage.k8s.io").table.cells(obj, 0) == [
        "s (default)", "a/b", "Delete", "Immediate", False, "<unknown>"]


def test_a_disruption_budget_says_one_thing() -> None:
    _, errors = created(
        "poddisruptionbudgets", {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "maxUnavailable": 1}}, "policy"
    )
    assert words(errors)[0].endswith("minAvailable and maxUnavailable cannot be both set")


def test_a_user_priority_class_stays_below_the_systems() -> None:
    _, errors = created("priorityclasses", {"metadata": {"name": "p"}, "value": 2_000_000_000}, "scheduling.k8s.io")
    assert words(errors) == ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]


def test_an_ingress_path_is_absolute() -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    body = {
        "metadata": {"name": "i"},
        "spec": {"rules": [{"http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": backend}]}}]},
    }
    assert words(created("ingresses", body, "networking.k8s.io")[1]) == [
        'spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path']


def test_a_crd_is_named_after_its_plural_and_group() -> None:
    names = {"plural": "things", "kind": "Thing"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    body = {"metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": versions}}
    obj, errors = created("customresourcedefinitions", body, "apiextensions.k8s.io")
    assert errors == []
    assert (obj["spec"]["names"]["listKind"], obj["status"]["storedVersions"]) == ("ThingList", ["v1"])
    body["metadata"] = {"name": "wrong.example.com"}
    assert words(created("customresourcedefinitions", body, "apiextensions.k8s.io")[1]) == [
        'metadata.name: Invalid value: "wrong.example.com": must be spec.names.plural+"."+spec.group']
