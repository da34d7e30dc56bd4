"""Request bodies: JSON, YAML and protobuf to an object, or upstream's refusal."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.errors import APIError, BadRequest, Invalid, UnsupportedMediaType
from miniapiserver.schema import complete, gojson, protobuf, types, yamldoc
from miniapiserver.schema.decode import (
    JSON_TYPE,
    PROTOBUF_TYPE,
    YAML_TYPE,
    decode,
    decode_patched,
    strict_failure,
)

RECORDED = json.loads(Path(__file__).with_name("kubectl_bodies.json").read_text())


def configmap(body: bytes, content_type: str = JSON_TYPE) -> tuple[dict[str, Any], list[str]]:
    return decode(body, content_type, "", "v1", "ConfigMap")


def refusal(body: bytes, content_type: str = JSON_TYPE, kind: str = "ConfigMap") -> str:
    with pytest.raises(BadRequest) as error:
        decode(body, content_type, "", "v1", kind)
    return error.value.message


def test_kind_version_and_metadata_come_first() -> None:
    obj, _ = configmap(b'{"data":{"k":"v"},"metadata":{"name":"a"},"kind":"ConfigMap","apiVersion":"v1"}')
    assert list(obj) == ["kind", "apiVersion", "metadata", "data"]


def test_kind_and_version_may_be_absent() -> None:
    assert configmap(b'{"metadata":{"name":"a"}}') == (
        {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}},
        [],
    )


# Words recorded from Kubernetes v1.36.
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"apiVersion":',
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; "
            'json parse error: unexpected end of JSON input ({"apiVersion":)',
        ),
        (
            b"",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse "
            "error: unexpected end of JSON input (<empty>)",
        ),
        (
            b'{"apiVersion":"v1","kind":"Secret"}',
            'Secret in version "v1" cannot be handled as a ConfigMap: converting '
            "(v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            b'{"apiVersion":"v1","kind":"Nope"}',
            'Nope in version "v1" cannot be handled as a ConfigMap: no kind "Nope" is '
            'registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
    ],
)
def test_a_body_that_is_no_configmap_is_refused_in_upstreams_words(body: bytes, words: str) -> None:
    assert refusal(body) == words


def test_a_container_list_that_is_text_is_refused_in_upstreams_words() -> None:
    assert refusal(b'{"apiVersion":"v1","kind":"Pod","spec":{"containers":"x"}}', kind="Pod") == (
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field '
        "PodSpec.spec.containers of type []v1.Container"
    )


def test_strict_names_every_problem() -> None:
    obj, problems = configmap(b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dataa":{},"x":1}')
    assert strict_failure(obj, "ConfigMap", problems).message == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "dataa", unknown field "x"'
    )


def test_duplicate_fields_are_found_with_their_path_and_the_last_one_wins() -> None:
    obj, problems = configmap(b'{"metadata":{"name":"a","name":"b"},"data":{"k":"1"},"data":{"k":"x:y"}}')
    assert obj["metadata"] == {"name": "b"} and obj["data"] == {"k": "x:y"}
    assert problems == ['duplicate field "data"', 'duplicate field "metadata.name"']


@pytest.mark.parametrize(
    "body", [b'{"data":{"a":"x:y","b":"\\u003a"}}', b'{ "data" : { "a" : ":::" } }', b'{"data":{"a:b":"c"}}']
)
def test_colons_are_no_duplicates(body: bytes) -> None:
    assert configmap(body)[1] == []


def test_a_duplicate_cannot_hide_behind_an_escaped_colon() -> None:
    assert configmap(b'{"data":{"a":"1","a":"\\u003a"}}')[1] == ['duplicate field "data.a"']


def test_another_version_of_the_group_is_named() -> None:
    with pytest.raises(BadRequest) as error:
        decode(
            b'{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler"}',
            "",
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
        )
    assert error.value.message == (
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    )


def test_delete_options_may_come_in_any_group() -> None:
    obj, _ = decode(
        b'{"kind":"DeleteOptions","apiVersion":"apps/v1","propagationPolicy":"Orphan"}', "", "", "v1", "DeleteOptions"
    )
    assert obj["propagationPolicy"] == "Orphan"


def test_an_unknown_media_type_is_415() -> None:
    with pytest.raises(UnsupportedMediaType) as error:
        configmap(b"<a/>", "text/xml")
    assert error.value.message == (
        "the body of the request was in an unknown format - accepted media types include: application/json, "
        "application/yaml, application/vnd.kubernetes.protobuf"
    )


def test_yaml_is_read_as_upstream_reads_it() -> None:
    obj, problems = configmap(b"metadata:\n  name: a\n  name: b\ndata: {1: '2', on: x}\nimmutable: yes\n", YAML_TYPE)
    assert obj == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "b"},
        "data": {"1": "2", "true": "x"},
        "immutable": True,
    }
    assert problems == ['line 3: key "name" already set in map']


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0777", 511),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ("~", None),
        ("!!str 1", "1"),
        ("NO", False),
        ("1_000", 1000),
        ("-0", 0),
        ("+", "+"),
        ("v1.2", "v1.2"),
        ("99999999999999999999", 1e20),
    ],
)
def test_yaml_scalars_follow_goyaml(text: str, value: object) -> None:
    assert yamldoc.load(f"a: {text}".encode())[0] == {"a": value}


BOMB = (
    b"a: &a ["
    + b"x," * 2000
    + b"]\n"
    + b"".join(b"b%d: [%s]\n" % (index, b",".join([b"*a"] * 20)) for index in range(10))
)


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b"{a: " * 100_000, b"&a [*a]", BOMB, b"a: b: c", b"a: .inf"],
    ids=["sequences", "mappings", "itself", "bomb", "two values", "infinity"],
)
def test_hostile_yaml_is_refused_quickly(body: bytes) -> None:
    with pytest.raises(yamldoc.InvalidYAML):
        yamldoc.load(body)


def test_aliases_do_not_share_what_they_name() -> None:
    value, _ = yamldoc.load(b"a: &x {k: 1}\nb: *x\nc: {<<: *x, m: 2}\n")
    assert value == {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "m": 2}}
    assert value["a"] is not value["b"]


def test_nesting_that_cannot_be_stored_is_refused() -> None:
    deep = b'{"data":' + b"[" * 600 + b"]" * 600 + b"}"
    assert "exceeded max depth" in refusal(deep)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{a", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"{} x", "invalid character 'x' after top-level value"),
        (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'"\x01"', "invalid character '\\u0001' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.", "unexpected end of JSON input"),
        (b"'", "invalid character '\\'' looking for beginning of value"),
    ],
)
def test_broken_json_is_described_as_go_does(body: bytes, words: str) -> None:
    assert gojson.syntax_error(body) == words


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_protobuf_that_kubectl_sends_is_the_object_it_means(name: str) -> None:
    """Bodies of kubectl 1.33 (1.32 sends the same bytes); objects agree with its own --dry-run=client -o json."""
    expected = RECORDED[name]["object"]
    group, _, version = expected["apiVersion"].rpartition("/")
    obj, problems = decode(base64.b64decode(RECORDED[name]["body"]), PROTOBUF_TYPE, group, version, expected["kind"])
    schema = types.for_kind(group, version, expected["kind"])
    assert schema is not None
    complete(obj, schema)
    assert (obj, problems) == (expected, [])
    again, _ = decode(protobuf.encode(expected), PROTOBUF_TYPE, group, version, expected["kind"])
    complete(again, schema)
    assert again == expected


def test_delete_options_in_protobuf() -> None:
    options = {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u", "resourceVersion": "5"},
        "propagationPolicy": "Background",
        "dryRun": ["All"],
    }
    assert decode(protobuf.encode(options), PROTOBUF_TYPE, "", "v1", "DeleteOptions") == (options, [])


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        (
            ("", "v1", "Event"),
            {"firstTimestamp": "2024-01-02T03:04:05Z", "eventTime": "2024-01-02T03:04:05.000006Z", "count": 3},
        ),
        (
            ("coordination.k8s.io", "v1", "Lease"),
            {"spec": {"renewTime": "2024-01-02T03:04:05.678901Z", "leaseTransitions": 0}},
        ),
        (("apps", "v1", "ControllerRevision"), {"data": {"spec": {"any": [1, None, "x"]}}, "revision": 3}),
        (
            ("authorization.k8s.io", "v1", "SubjectAccessReview"),
            {"spec": {"extra": {"a": ["b", "c"]}, "groups": ["g"]}},
        ),
        (
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            {
                "spec": {
                    "group": "e.x",
                    "scope": "Cluster",
                    "names": {"kind": "W", "plural": "ws"},
                    "versions": [
                        {
                            "name": "v1",
                            "served": True,
                            "storage": True,
                            "schema": {
                                "openAPIV3Schema": {
                                    "type": "object",
                                    "x-kubernetes-preserve-unknown-fields": True,
                                    "properties": {
                                        "a": {"items": {"type": "string"}, "type": "array"},
                                        "b": {"additionalProperties": False},
                                        "c": {
                                            "additionalProperties": {"type": "integer", "minimum": 0.5},
                                            "default": {"x": 1},
                                        },
                                    },
                                }
                            },
                        }
                    ],
                }
            },
        ),
        (
            ("", "v1", "Pod"),
            {
                "metadata": {
                    "name": "p",
                    "managedFields": [
                        {
                            "manager": "m",
                            "operation": "Update",
                            "apiVersion": "v1",
                            "time": "2024-01-02T03:04:05Z",
                            "fieldsType": "FieldsV1",
                            "fieldsV1": {"f:spec": {"f:nodeName": {}}},
                        }
                    ],
                },
                "spec": {
                    "containers": [
                        {
                            "name": "c",
                            "resources": {"limits": {"cpu": "100m"}},
                            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                        }
                    ],
                    "volumes": [
                        {
                            "name": "v",
                            "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": -1}}]},
                        }
                    ],
                    "automountServiceAccountToken": False,
                },
            },
        ),
    ],
)
def test_protobuf_and_back_is_the_same_object(kind: tuple[str, str, str], extra: dict[str, Any]) -> None:
    group, version, name = kind
    obj = {"kind": name, "apiVersion": f"{group}/{version}" if group else version, "metadata": {"name": "x"}} | extra
    wanted, _ = decode(json.dumps(obj).encode(), JSON_TYPE, *kind)
    complete(wanted, types.for_kind(*kind))  # type: ignore[arg-type]
    found, problems = decode(protobuf.encode(wanted), PROTOBUF_TYPE, *kind)
    complete(found, types.for_kind(*kind))  # type: ignore[arg-type]
    assert (found, problems) == (wanted, [])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_as_protobuf(data: bytes) -> None:
    for body in (data, protobuf.MAGIC + data):
        with contextlib.suppress(protobuf.BadProtobuf):
            protobuf.decode(body)


@settings(deadline=None)
@given(st.sampled_from(sorted(RECORDED)), st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 400))
def test_a_damaged_kubectl_body_is_decoded_or_refused(name: str, place: int, byte: int, cut: int) -> None:
    body = bytearray(base64.b64decode(RECORDED[name]["body"]))
    body[place % len(body)] = byte
    for damaged in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(APIError):
            decode(damaged, PROTOBUF_TYPE, "", "v1", "ConfigMap")


@settings(deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_decoded_or_refused_as_json_and_yaml(body: bytes) -> None:
    for media in (JSON_TYPE, YAML_TYPE):
        with contextlib.suppress(APIError):
            configmap(body, media)


def test_endless_protobuf_nesting_is_refused() -> None:
    inner = b""
    for _ in range(3000):  # JSONSchemaProps.not {28} within itself
        inner = protobuf._record(28, inner)
    crd = protobuf._record(2, protobuf._record(7, protobuf._record(4, protobuf._record(1, inner))))
    meta = protobuf._record(1, b"apiextensions.k8s.io/v1") + protobuf._record(2, b"CustomResourceDefinition")
    with pytest.raises(protobuf.BadProtobuf, match="too deeply nested"):
        protobuf.decode(protobuf.MAGIC + protobuf._record(1, meta) + protobuf._record(2, crd))


def test_a_patched_object_of_the_wrong_type_is_invalid() -> None:
    with pytest.raises(Invalid) as error:
        decode_patched({"kind": "ConfigMap", "apiVersion": "v1", "data": "x"}, "", "v1", "ConfigMap", b'{"data":"x"}')
    assert error.value.message == (
        ' "" is invalid: patch: Invalid value: "{\\"data\\":\\"x\\"}": json: cannot unmarshal string into Go struct '
        "field ConfigMap.data of type map[string]string"
    )


@pytest.mark.parametrize("patched", [[], "x", None, {"kind": "Secret", "apiVersion": "v1"}])
def test_a_patch_cannot_make_something_else_of_an_object(patched: Any) -> None:
    with pytest.raises(Invalid):
        decode_patched(patched, "", "v1", "ConfigMap")


def test_a_watch_frame_is_a_length_and_an_event() -> None:
    frame = protobuf.encode_watch_event("ADDED", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}})
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert b"ADDED" in frame and protobuf.MAGIC in frame
