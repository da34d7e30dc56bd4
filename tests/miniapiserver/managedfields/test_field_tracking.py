"""Field ownership of creates, updates and patches. Expected sets were recorded from Kubernetes v1.36."""

import copy
from typing import Any

from miniapiserver.managedfields import keep_times, manager_name, track_update
from miniapiserver.schema import types

JSON = dict[str, Any]
NOW, LATER = "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"


def tracked(
    obj: JSON,
    type_name: str,
    old: JSON | None = None,
    manager: str = "unknown",
    now: str = NOW,
    subresource: str = "",
) -> list[JSON]:
    track_update(
        old,
        obj,
        types.find(type_name),
        api_version=obj.get("apiVersion", "v1"),
        manager=manager,
        now=now,
        subresource=subresource,
    )
    entries: list[JSON] = obj["metadata"].get("managedFields", [])
    return entries


def fields(obj: JSON, type_name: str) -> JSON:
    [entry] = tracked(obj, type_name)
    found: JSON = entry["fieldsV1"]
    return found


def configmap(**data: str) -> JSON:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "uid": "u"}, "data": data}


def test_a_create_owns_what_it_said() -> None:
    obj = {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "a", "namespace": "n", "labels": {"app": "x"}},
        "data": {"k": "v"},
    }
    assert tracked(obj, "core.v1.ConfigMap") == [
        {
            "manager": "unknown",
            "operation": "Update",
            "apiVersion": "v1",
            "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:labels": {".": {}, "f:app": {}}}},
        }
    ]


def test_a_pod_as_recorded() -> None:
    pod = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p1"},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeName": "n",
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "containers": [
                {
                    "name": "c",
                    "image": "busybox",
                    "command": ["sleep", "3600"],
                    "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }
            ],
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    }
    assert fields(pod, "core.v1.Pod") == {
        "f:spec": {
            "f:automountServiceAccountToken": {},
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:command": {},
                    "f:image": {},
                    "f:imagePullPolicy": {},
                    "f:name": {},
                    "f:resources": {},
                    "f:terminationMessagePath": {},
                    "f:terminationMessagePolicy": {},
                }
            },
            "f:dnsPolicy": {},
            "f:enableServiceLinks": {},
            "f:nodeName": {},
            "f:restartPolicy": {},
            "f:schedulerName": {},
            "f:securityContext": {},
            "f:terminationGracePeriodSeconds": {},
        }
    }


def test_a_service_as_recorded_with_the_key_default_of_its_ports() -> None:
    service = {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": "svc"},
        "spec": {
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "selector": {"a": "b"},
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }
    expected = {
        "f:spec": {
            "f:internalTrafficPolicy": {},
            "f:ports": {
                ".": {},
                'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}},
            },
            "f:selector": {},
            "f:sessionAffinity": {},
            "f:type": {},
        }
    }
    assert fields(copy.deepcopy(service), "core.v1.Service") == expected
    del service["spec"]["ports"][0]["protocol"]  # type: ignore[index]
    assert 'k:{"port":80,"protocol":"TCP"}' in fields(service, "core.v1.Service")["f:spec"]["f:ports"]


def test_atomic_lists_and_sets_and_keyed_lists() -> None:
    role = {
        "kind": "Role",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "r", "finalizers": ["b", "a"], "ownerReferences": [{"uid": "u<1", "name": "o"}]},
        "rules": [{"verbs": ["get"]}],
    }
    assert fields(role, "rbac.v1.Role") == {
        "f:rules": {},
        "f:metadata": {
            "f:finalizers": {".": {}, 'v:"b"': {}, 'v:"a"': {}},
            "f:ownerReferences": {".": {}, 'k:{"uid":"u\\u003c1"}': {}},
        },
    }


def test_status_of_a_create_is_nobodys() -> None:
    node = {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": "n", "labels": {"a": "b"}},
        "status": {"phase": "Running"},
    }
    assert fields(node, "core.v1.Node") == {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}


def test_a_status_write_owns_status_only_under_its_subresource() -> None:
    old = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n", "uid": "u"}}
    tracked(old, "core.v1.Node", manager="kubelet")
    old["metadata"]["managedFields"] = tracked(configmap(a="b"), "core.v1.ConfigMap", manager="kubelet")  # type: ignore[index]
    new = copy.deepcopy(old) | {"spec": {"unschedulable": True}, "status": {"phase": "Running"}}
    entry = tracked(new, "core.v1.Node", old, "kubelet", LATER, "status")[-1]
    assert (entry["subresource"], entry["time"]) == ("status", LATER)
    assert entry["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_an_update_takes_what_it_changes_from_others() -> None:
    old = configmap(a="1", b="2")
    tracked(old, "core.v1.ConfigMap", manager="one")
    new = copy.deepcopy(old)
    new["data"] |= {"b": "9", "c": "3"}
    entries = tracked(new, "core.v1.ConfigMap", old, "two", LATER)
    assert [(entry["manager"], entry["time"], entry["fieldsV1"]) for entry in entries] == [
        ("one", NOW, {"f:data": {".": {}, "f:a": {}}}),
        ("two", LATER, {"f:data": {"f:b": {}, "f:c": {}}}),
    ]


def test_a_removed_field_is_nobodys_and_a_manager_without_fields_disappears() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap", manager="one")
    new = copy.deepcopy(old)
    new["data"] = {"b": "1"}
    middle = tracked(new, "core.v1.ConfigMap", old, "two", LATER)
    assert [(entry["manager"], entry["fieldsV1"]) for entry in middle] == [
        ("one", {"f:data": {}}),
        ("two", {"f:data": {"f:b": {}}}),
    ]
    last = copy.deepcopy(new)
    del last["data"]
    assert tracked(last, "core.v1.ConfigMap", new, "three", LATER) == []


def test_the_same_manager_keeps_one_entry() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    new["data"]["b"] = "2"
    assert tracked(new, "core.v1.ConfigMap", old, now=LATER) == [
        {
            "manager": "unknown",
            "operation": "Update",
            "apiVersion": "v1",
            "time": LATER,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:a": {}, "f:b": {}}},
        }
    ]


def test_an_update_that_changes_nothing_keeps_every_time() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    tracked(new, "core.v1.ConfigMap", old, "two", LATER)
    assert new == old


def test_a_client_that_drops_managed_fields_does_not_lose_them() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    del new["metadata"]["managedFields"]
    tracked(new, "core.v1.ConfigMap", old, now=LATER)
    assert new == old


def test_one_empty_entry_starts_over() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    new["metadata"]["managedFields"] = [{}]
    assert tracked(new, "core.v1.ConfigMap", old) == []


def test_an_untracked_object_stays_untracked_until_it_is_applied() -> None:
    old = configmap(a="1")
    new = configmap(a="2")
    assert tracked(new, "core.v1.ConfigMap", old) == []


def test_entries_nobody_can_read_are_replaced_by_the_live_ones() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    new["metadata"]["managedFields"] = [{"manager": "x", "operation": "Nope"}]
    tracked(new, "core.v1.ConfigMap", old)
    assert new == old


def test_more_than_ten_updaters_are_merged_oldest_first() -> None:
    obj = configmap()
    obj["data"] = {"start": "1"}
    tracked(obj, "core.v1.ConfigMap", manager="m00", now="2024-01-01T00:00:00Z")
    for number in range(1, 14):
        new = copy.deepcopy(obj)
        new["data"][f"k{number}"] = "v"
        tracked(new, "core.v1.ConfigMap", obj, f"m{number:02}", f"2024-01-01T00:{number:02}:00Z")
        obj = new
    entries = obj["metadata"]["managedFields"]
    assert len(entries) == 10
    ancient = next(entry for entry in entries if entry["manager"] == "ancient-changes")
    assert {"f:start", "f:k1", "f:k2"} <= set(ancient["fieldsV1"]["f:data"])


def test_a_write_that_changes_only_times_is_none() -> None:
    old = configmap(a="1")
    tracked(old, "core.v1.ConfigMap")
    new = copy.deepcopy(old)
    new["metadata"]["managedFields"][0]["time"] = LATER
    keep_times(old, new)
    assert new == old
    new["data"]["a"] = "2"
    new["metadata"]["managedFields"][0]["time"] = LATER
    keep_times(old, new)
    assert new["metadata"]["managedFields"][0]["time"] == LATER


def test_the_manager_is_the_parameter_or_the_first_word_of_the_agent() -> None:
    assert manager_name("x", "kubectl/v1.33") == "x"
    assert manager_name("", "kubectl/v1.33 (linux)") == "kubectl"
    assert manager_name("", "") == "unknown"
