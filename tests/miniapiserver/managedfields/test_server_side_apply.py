"""Server-side apply: merging, conflicts, removal."""

import copy
from typing import Any

import orjson
import pytest

from miniapiserver.errors import BadRequest, PlainInternal
from miniapiserver.managedfields import ApplyConflict, read_config, server_side_apply, track_update
from miniapiserver.schema import complete, conform, types

JSON = dict[str, Any]
NOW, LATER = "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"


def config(kind: str = "ConfigMap", api_version: str = "v1", **more: Any) -> JSON:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}} | more


def apply(
    live: JSON | None,
    wanted: JSON,
    manager: str = "one",
    force: bool = False,
    now: str = NOW,
    subresource: str = "",
) -> JSON:
    group, _, version = wanted["apiVersion"].rpartition("/")
    schema = types.for_kind(group, version, wanted["kind"])
    assert schema is not None
    before = repr((live, wanted))
    result = server_side_apply(
        live,
        wanted,
        schema,
        api_version=wanted["apiVersion"],
        manager=manager,
        force=force,
        subresource=subresource,
        now=now,
    )
    assert repr((live, wanted)) == before
    assert conform(result, schema) == []
    complete(result, schema)
    result["metadata"]["uid"] = "u"
    return result


def owned(obj: JSON) -> dict[str, JSON]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", [])}


def deployment(*containers: JSON, **spec: Any) -> JSON:
    return config("Deployment", "apps/v1", spec={"template": {"spec": {"containers": list(containers)}}} | spec)


def test_apply_creates_and_owns_leaves_only() -> None:
    obj = apply(None, config(data={"k": "v"}))
    assert obj["data"] == {"k": "v"}
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "one",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:k": {}}},
        }
    ]


def test_what_another_manager_applied_is_a_conflict_in_upstreams_words() -> None:
    live = apply(None, config(data={"k": "v"}), "golden")
    with pytest.raises(ApplyConflict) as error:
        apply(live, config(data={"k": "w"}), "other")
    assert error.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "Conflict",
        "code": 409,
        "message": 'Apply failed with 1 conflict: conflict with "golden": .data.k',
        "details": {
            "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "golden"', "field": ".data.k"}]
        },
    }


def test_force_takes_ownership() -> None:
    live = apply(None, config(data={"k": "v"}), "golden")
    obj = apply(live, config(data={"k": "w"}), "other", force=True)
    assert (obj["data"], owned(obj)) == ({"k": "w"}, {"other": {"f:data": {"f:k": {}}}})


def test_several_conflicts_are_listed_by_manager() -> None:
    live = apply(apply(None, config(data={"a": "1", "b": "1"}), "one"), config(data={"c": "1"}), "two")
    with pytest.raises(ApplyConflict) as error:
        apply(live, config(data={"a": "2", "b": "2", "c": "2"}), "three")
    assert error.value.message == (
        'Apply failed with 3 conflicts: conflicts with "one":\n- .data.a\n- .data.b\nconflicts with "two":\n- .data.c'
    )


def test_a_conflict_with_an_updater_names_its_version_and_subresource() -> None:
    live = apply(None, deployment({"name": "c", "image": "1"}, replicas=1))
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 5
    track_update(
        live,
        scaled,
        types.find("apps.v1.Deployment"),
        api_version="apps/v1",
        manager="hpa",
        subresource="scale",
        now=LATER,
    )
    with pytest.raises(ApplyConflict) as error:
        apply(scaled, deployment({"name": "c", "image": "1"}, replicas=1))
    assert error.value.message == (
        'Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas'
    )


def test_the_same_value_is_shared() -> None:
    live = apply(None, config(data={"k": "v"}), "one")
    obj = apply(live, config(data={"k": "v"}), "two", now=LATER)
    assert owned(obj) == {"one": {"f:data": {"f:k": {}}}, "two": {"f:data": {"f:k": {}}}}


def test_what_is_no_longer_applied_is_removed() -> None:
    live = apply(None, config(data={"a": "1", "b": "2"}))
    assert apply(live, config(data={"a": "1"}))["data"] == {"a": "1"}
    assert "data" not in apply(live, config())


def test_what_somebody_else_owns_stays() -> None:
    live = apply(apply(None, config(data={"a": "1", "b": "2"}), "one"), config(data={"b": "2"}), "two")
    obj = apply(live, config(data={"a": "1"}), "one")
    assert obj["data"] == {"a": "1", "b": "2"}
    assert owned(obj) == {"one": {"f:data": {"f:a": {}}}, "two": {"f:data": {"f:b": {}}}}


def test_what_nobody_applied_stays() -> None:
    live = apply(None, config(data={"a": "1"}))
    changed = copy.deepcopy(live)
    changed["data"]["z"] = "9"
    track_update(live, changed, types.find("core.v1.ConfigMap"), api_version="v1", manager="editor", now=LATER)
    assert apply(changed, config(data={"b": "2"}))["data"] == {"b": "2", "z": "9"}


def test_applying_the_same_again_changes_nothing() -> None:
    live = apply(None, deployment({"name": "c", "image": "1", "ports": [{"containerPort": 80}]}, replicas=0))
    assert (
        apply(live, deployment({"name": "c", "image": "1", "ports": [{"containerPort": 80}]}, replicas=0), now=LATER)
        == live
    )


def test_keyed_lists_merge_and_lose_what_is_no_longer_applied() -> None:
    live = apply(None, deployment({"name": "a", "image": "1"}, {"name": "b", "image": "1"}))
    added = copy.deepcopy(live)
    added["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "s", "resources": {}})
    track_update(live, added, types.find("apps.v1.Deployment"), api_version="apps/v1", manager="injector", now=LATER)
    obj = apply(added, deployment({"name": "b", "image": "2"}))
    assert [(item["name"], item["image"]) for item in obj["spec"]["template"]["spec"]["containers"]] == [
        ("sidecar", "s"),
        ("b", "2"),
    ]


def test_ports_without_protocol_are_tcp() -> None:
    live = apply(None, deployment({"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}))
    obj = apply(live, deployment({"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}))
    ports = obj["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert len(ports) == 1 and ports[0]["name"] == "http"


def test_sets_are_owned_by_value() -> None:
    def with_finalizers(*names: str) -> JSON:
        found = config()
        found["metadata"]["finalizers"] = list(names)
        return found

    live = apply(apply(None, with_finalizers("a", "b"), "one"), with_finalizers("b", "c"), "two")
    assert sorted(live["metadata"]["finalizers"]) == ["a", "b", "c"]
    assert sorted(apply(live, with_finalizers(), "one")["metadata"]["finalizers"]) == ["b", "c"]


def test_atomic_values_are_owned_as_a_whole() -> None:
    live = apply(None, deployment({"name": "a"}, selector={"matchLabels": {"a": "1"}}), "one")
    assert owned(live)["one"]["f:spec"]["f:selector"] == {}
    with pytest.raises(ApplyConflict, match=r"\.spec\.selector$"):
        apply(live, deployment({"name": "a"}, selector={"matchLabels": {"b": "1"}}), "two")


def test_a_quantity_written_otherwise_is_no_conflict() -> None:
    live = apply(None, deployment({"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}), "one")
    obj = apply(live, deployment({"name": "a", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}}), "two")
    assert obj["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1", "memory": "1Gi"}}


def test_status_is_applied_apart() -> None:
    live = apply(None, config("Node", spec={"unschedulable": True}), "one")
    obj = apply(live, config("Node", status={"phase": "Running"}), "one", subresource="status")
    entries = {entry.get("subresource", ""): entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}
    assert entries == {"": {"f:spec": {"f:unschedulable": {}}}, "status": {"f:status": {"f:phase": {}}}}
    assert "status" not in owned(apply(None, config("Node", status={"phase": "Running"}), "one"))


def test_an_object_nobody_tracked_gets_a_first_manager() -> None:
    live = config(data={"a": "1", "b": "2"})
    obj = apply(live, config(data={"a": "1"}))
    assert owned(obj) == {
        "one": {"f:data": {"f:a": {}}},
        "before-first-apply": {"f:data": {".": {}, "f:a": {}, "f:b": {}}},
    }
    with pytest.raises(ApplyConflict, match=r'conflict with "before-first-apply" using v1: \.data\.a'):
        apply(live, config(data={"a": "9"}))


LAST = "kubectl.kubernetes.io/last-applied-configuration"


def client_side_applied() -> JSON:
    said = orjson.dumps(config(data={"k": "v"})).decode()
    live = config(data={"k": "v", "other": "o"})
    live["metadata"] |= {"annotations": {LAST: said}, "uid": "u"}
    track_update(
        None, live, types.find("core.v1.ConfigMap"), api_version="v1", manager="kubectl-client-side-apply", now=NOW
    )
    return live


def test_kubectl_may_turn_from_client_side_to_server_side_apply() -> None:
    obj = apply(client_side_applied(), config(data={"k": "w"}), "kubectl")
    assert obj["data"] == {"k": "w", "other": "o"}
    assert orjson.loads(obj["metadata"]["annotations"][LAST])["data"] == {"k": "w"}


def test_but_not_over_fields_it_never_applied() -> None:
    with pytest.raises(ApplyConflict) as error:
        apply(client_side_applied(), config(data={"k": "w", "other": "mine"}), "kubectl")
    assert error.value.message.endswith('conflict with "kubectl-client-side-apply" using v1: .data.other')
    with pytest.raises(ApplyConflict, match="2 conflicts"):
        apply(client_side_applied(), config(data={"k": "w", "other": "mine"}), "somebody")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (config(dataa={}), ".dataa: field not declared in schema"),
        (config(data={"k": 5}), ".data.k: expected string, got &value.valueUnstructured{Value:5}"),
        (config(data="x"), ".data: expected map, got &{x}"),
        (config(immutable="x"), ".immutable: expected boolean, got &{x}"),
        (
            config(data={"k": True}, immutable=1),
            "errors:\n  .data.k: expected string, got &value.valueUnstructured{Value:true}\n"
            "  .immutable: expected boolean, got &{1}",
        ),
    ],
)
def test_a_configuration_of_another_shape_is_refused_in_upstreams_words(wanted: JSON, why: str) -> None:
    with pytest.raises(PlainInternal) as raised:
        apply(None, wanted)
    assert raised.value.message == f"failed to create typed patch object (/x; /v1, Kind=ConfigMap): {why}"


@pytest.mark.parametrize(
    ("containers", "why"),
    [
        ([{"name": "a", "imag": "x"}], '.spec.template.spec.containers[name="a"].imag: field not declared in schema'),
        ([{"name": "a", "args": "x"}], '.spec.template.spec.containers[name="a"].args: expected list, got &{x}'),
        (
            [{"name": "a", "args": ["x", 1]}],
            '.spec.template.spec.containers[name="a"].args[1]: expected string, got &value.valueUnstructured{Value:1}',
        ),
        (
            [{"name": "a", "ports": [{"containerPort": "80"}]}],
            '.spec.template.spec.containers[name="a"].ports[containerPort="80",protocol="TCP"].containerPort: '
            "expected numeric (int or float), got string",
        ),
        ([{"name": "a"}, {"name": "a"}], '.spec.template.spec.containers: duplicate entries for key [name="a"]'),
        (
            [{"image": "x"}],
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key "
            'fields ["name"] (and doesn\'t have default values for any key fields)',
        ),
    ],
)
def test_an_element_of_another_shape_is_named_by_its_key(containers: list[JSON], why: str) -> None:
    with pytest.raises(PlainInternal) as raised:
        apply(None, deployment(*containers))
    assert raised.value.message == f"failed to create typed patch object (/x; apps/v1, Kind=Deployment): {why}"


def test_managed_fields_cannot_be_applied() -> None:
    with pytest.raises(BadRequest) as raised:
        apply(None, config(metadata={"name": "x", "managedFields": [{}]}))
    assert raised.value.message == "metadata.managedFields must be nil"


def test_another_kind_is_refused() -> None:
    with pytest.raises(BadRequest, match="invalid object type: /v1, Kind=Secret"):
        server_side_apply(
            None, config("Secret"), types.find("core.v1.ConfigMap"), api_version="v1", manager="m", force=False, now=NOW
        )


def test_a_body_may_be_yaml_or_json() -> None:
    assert read_config(b"apiVersion: v1\nkind: ConfigMap\n", "ConfigMap")[0] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
    }
    assert read_config(b'{"apiVersion":"v1","a":1,"a":2}', "ConfigMap") == (
        {"apiVersion": "v1", "a": 2},
        ['line 1: key "a" already set in map'],
    )
    with pytest.raises(BadRequest, match="error decoding YAML"):
        read_config(b"a: b: c", "ConfigMap")
    with pytest.raises(BadRequest, match="error decoding YAML"):
        read_config(b"[]", "ConfigMap")


def test_free_form_custom_resources_are_owned_by_key() -> None:
    free = types.TypeSchema("free.v1.Free", dict(types.find("core.v1.ConfigMap").fields), preserve_unknown=True)
    types.add(free, "free", "v1", "Free")
    try:
        live = apply(None, config("Free", "free/v1", spec={"a": {"b": 1}, "list": [1, 2]}))
        assert owned(live) == {"one": {"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:list": {}}}}
        assert apply(live, config("Free", "free/v1", spec={"a": {"c": 1}}))["spec"] == {"a": {"c": 1}}
    finally:
        types.remove("free.v1.Free")
