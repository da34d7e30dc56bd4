"""Pruning, checking and completing decoded objects."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.schema import complete, conform, types
from miniapiserver.schema.conform import Mismatch

JSON = dict[str, Any]
POD = types.find("core.v1.Pod")


def pod(**spec: Any) -> JSON:
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": spec}


def test_an_unknown_field_is_pruned_and_named_with_its_path() -> None:
    obj = pod(bogus=1, containers=[{"name": "c", "imag": "x"}])
    assert conform(obj, POD) == ['unknown field "spec.bogus"', 'unknown field "spec.containers[0].imag"']
    assert obj == pod(containers=[{"name": "c"}])


def test_names_are_case_sensitive() -> None:
    assert conform(pod(Containers=[]), POD) == ['unknown field "spec.Containers"']


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (
            pod(containers="x"),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            pod(containers=["x"]),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            {"metadata": {"name": 5}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            {"metadata": {"labels": {"a": True}}},
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            pod(restartPolicy=[]),
            "json: cannot unmarshal array into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            pod(priority=99999999999),
            "json: cannot unmarshal number 99999999999 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            pod(priority=1.5),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            pod(hostNetwork="yes"),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            {"metadata": {"creationTimestamp": "soon"}},
            'parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"',
        ),
        (
            pod(containers=[{"resources": {"limits": {"cpu": "one"}}}]),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_upstreams_words(obj: JSON, words: str) -> None:
    with pytest.raises(Mismatch) as error:
        conform(obj, POD)
    assert str(error.value) == words


def test_bad_base64_is_refused_with_its_place() -> None:
    with pytest.raises(Mismatch, match="illegal base64 data at input byte 2"):
        conform({"data": {"k": "ab!d"}}, types.find("core.v1.Secret"))


def test_null_means_absent() -> None:
    obj = pod(containers=None, volumes=None, affinity=None, restartPolicy=None)
    obj["metadata"] |= {"creationTimestamp": None, "labels": None}
    conform(obj, POD)
    assert obj == pod(containers=None)  # containers is never omitted


def test_empty_values_that_go_omits_are_dropped_and_pointers_are_kept() -> None:
    obj = pod(
        containers=[{"name": "c", "command": [], "image": "", "stdin": False}],
        hostNetwork=False,
        terminationGracePeriodSeconds=0,
        securityContext={},
        nodeSelector={},
    )
    conform(obj, POD)
    assert obj["spec"] == {"containers": [{"name": "c"}], "terminationGracePeriodSeconds": 0, "securityContext": {}}


def test_an_empty_list_that_is_always_printed_reads_back_as_null() -> None:
    role = {"metadata": {"name": "r"}, "rules": []}
    conform(role, types.find("rbac.v1.Role"))
    assert role["rules"] is None


def test_quantities_and_times_become_canonical() -> None:
    obj = pod(
        containers=[{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "0.5"}}}]
    )
    obj["metadata"]["deletionTimestamp"] = "2024-01-01T02:00:00+02:00"
    conform(obj, POD)
    assert obj["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "500m"},
    }
    assert obj["metadata"]["deletionTimestamp"] == "2024-01-01T00:00:00Z"


def test_int_or_string_takes_both_and_nothing_else() -> None:
    probe = {"name": "c", "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"httpGet": {"port": 80}}}
    assert conform(pod(containers=[probe]), POD) == []
    with pytest.raises(Mismatch, match="cannot unmarshal bool into Go value of type int32"):
        conform(pod(containers=[{"livenessProbe": {"httpGet": {"port": True}}}]), POD)


def test_whole_floats_are_integers() -> None:
    obj = pod(priority=1e3)
    conform(obj, POD)
    assert obj["spec"]["priority"] == 1000 and type(obj["spec"]["priority"]) is int


def test_recursive_schemas_are_followed() -> None:
    crd = {
        "spec": {
            "versions": [
                {
                    "name": "v1",
                    "schema": {
                        "openAPIV3Schema": {
                            "properties": {
                                "spec": {
                                    "properties": {
                                        "x": {
                                            "typ": "string",
                                            "items": {"type": "string"},
                                            "additionalProperties": False,
                                            "default": {"any": ["thing"]},
                                        }
                                    }
                                }
                            }
                        }
                    },
                }
            ]
        }
    }
    assert conform(crd, types.find("apiextensions.v1.CustomResourceDefinition")) == [
        'unknown field "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.x.typ"'
    ]


def test_types_without_schema_keep_everything() -> None:
    free = types.TypeSchema("free.v1.Free", dict(types.find("core.v1.ConfigMap").fields), preserve_unknown=True)
    types.add(free, "free", "v1", "Free")
    try:
        obj = {"metadata": {"name": "x", "nope": 1}, "spec": {"any": [None, {"x": ""}]}}
        assert conform(obj, free) == ['unknown field "metadata.nope"']
        assert obj == {"metadata": {"name": "x"}, "spec": {"any": [None, {"x": ""}]}}
    finally:
        types.remove("free.v1.Free")


def test_complete_adds_what_go_always_prints() -> None:
    deployment: JSON = {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
    complete(deployment, types.find("apps.v1.Deployment"))
    assert deployment == {
        "metadata": {"name": "d"},
        "status": {},
        "spec": {
            "selector": None,
            "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}},
        },
    }


def test_complete_of_a_node_prints_its_empty_info() -> None:
    node: JSON = {"metadata": {"name": "n"}}
    complete(node, types.find("core.v1.Node"))
    assert node["spec"] == {}
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert node["status"]["nodeInfo"]["kubeletVersion"] == ""


def test_complete_twice_is_complete_once() -> None:
    once: JSON = {"metadata": {"name": "d"}}
    complete(once, types.find("batch.v1.CronJob"))
    twice = dict(once.items())
    complete(twice, types.find("batch.v1.CronJob"))
    assert once == twice


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*POD.fields, "containers", "name", "labels", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*POD.fields, "x"]), json_values))
def test_any_json_is_conformed_or_refused_and_conforming_again_changes_nothing(obj: JSON) -> None:
    try:
        conform(obj, POD)
    except Mismatch:
        return
    complete(obj, POD)
    before = repr(obj)
    assert conform(obj, POD) == []
    complete(obj, POD)
    assert repr(obj) == before
