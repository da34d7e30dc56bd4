"""What Kubernetes v1.36 says and fills in, kind by kind, where it is easy to say something else."""

import pytest
from writes import created, updated

from miniapiserver.errors import quote

JSON = dict[str, object]


def words(errors: list[object]) -> list[str]:
    return [str(error) for error in errors]


def problems(plural: str, body: JSON, group: str = "") -> list[str]:
    return words([*created(plural, {"metadata": {"name": "x"}} | body, group)[1]])


def test_a_finalizer_without_a_domain_is_one_of_kubernetes_own() -> None:
    body = {"metadata": {"name": "x", "finalizers": ["foo", "orphan", "example.com/f"]}}
    assert problems("configmaps", body) == [
        'metadata.finalizers[0]: Invalid value: "foo": '
        "name is neither a standard finalizer name nor is it fully qualified"]


def test_a_docker_config_that_is_no_json_is_refused_in_gos_words() -> None:
    kind = "kubernetes.io/dockerconfigjson"
    said = [problems("secrets", {"type": kind, "stringData": {".dockerconfigjson": text}})
            for text in ("nojson", "[]", "{}")]
    where = 'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": '
    assert said == [[where + "invalid character 'o' in literal null (expecting 'u')"],
                    [where + "json: cannot unmarshal array into Go value of type map[string]interface {}"], []]


def test_an_empty_ingress_has_no_rules_to_show() -> None:
    assert problems("ingresses", {"spec": {}}, "networking.k8s.io") == [
        "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]


def test_an_ingress_backend_names_its_port_and_its_service() -> None:
    spec = {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend} for backend in (
        {}, {"service": {"name": "s"}}, {"service": {"port": {"number": 80}}})]}}]}
    at = "spec.rules[0].http.paths"
    assert problems("ingresses", {"spec": spec}, "networking.k8s.io") == [
        f'{at}[0].backend: Invalid value: "": resource or service backend is required',
        f"{at}[1].backend: Required value: port name or number is required",
        f"{at}[2].backend.service.name: Required value"]


def test_hosts_of_an_ingress_certificate_are_names() -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    (error,) = problems("ingresses", {"spec": {"defaultBackend": backend, "tls": [{"hosts": ["a.b", "A_"]}]}},
                        "networking.k8s.io")
    assert error.startswith('spec.tls[0].hosts[1]: Invalid value: "A_": a lowercase RFC 1123 subdomain must consist of')


def test_parameters_of_an_ingress_class_are_cluster_scoped_unless_it_says_otherwise() -> None:
    body = {"metadata": {"name": "x"}, "spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}}
    obj, _ = created("ingressclasses", body, "networking.k8s.io")
    assert obj["spec"]["parameters"]["scope"] == "Cluster"


def test_a_limit_is_of_a_standard_type() -> None:
    assert problems("limitranges", {"spec": {"limits": [{"type": "Foo"}]}}) == [
        'spec.limits[0].type: Invalid value: "Foo": must be a standard limit type or fully qualified']


def test_a_changed_cluster_ip_takes_cluster_ips_along_and_is_refused() -> None:
    old, _ = created("services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    old["spec"] |= {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}
    _, errors = updated("services", old, {"spec": {"clusterIP": "10.0.0.2"}})
    assert words([*errors]) == ['spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set']


@pytest.mark.parametrize(("spec", "said"), [
    ({"ipFamilies": ["IPv6"]}, ['spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster']),
    ({"ipFamilyPolicy": "RequireDualStack"},
     ['spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
      "this cluster is not configured for dual-stack services"]),
    ({"ipFamilyPolicy": "PreferDualStack"}, []),
])
def test_a_service_gets_the_address_family_there_is(spec: JSON, said: list[str]) -> None:
    assert problems("services", {"spec": {"ports": [{"port": 80}]} | spec}) == said


def test_a_behavior_is_completed_with_what_it_leaves_out() -> None:
    spec = {"scaleTargetRef": {"kind": "D", "name": "d", "apiVersion": "g/v1"}, "maxReplicas": 2,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}}
    obj, errors = created("horizontalpodautoscalers", {"metadata": {"name": "h"}, "spec": spec}, "autoscaling")
    all_pods = {"type": "Percent", "value": 100, "periodSeconds": 15}
    assert not errors
    assert obj["spec"]["behavior"] == {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, all_pods]},
        "scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Max", "policies": [all_pods]}}


def test_a_budget_with_both_amounts_is_shown_as_the_internal_struct() -> None:
    body = {"spec": {"minAvailable": 1, "maxUnavailable": 2}}
    assert problems("poddisruptionbudgets", body, "policy") == [
        'spec: Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":2,"UnhealthyPodEvictionPolicy":null}: '
        "minAvailable and maxUnavailable cannot be both set"]


def test_a_refused_change_of_a_claim_shows_the_difference() -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "a"}
    old, _ = created("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
    _, errors = updated("persistentvolumeclaims", old, {"spec": {"accessModes": ["ReadWriteMany"]}})
    assert words([*errors]) == [
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for "
        'bound claims\n@@ -1,6 +1,6 @@\n {\n  "AccessModes": [\n-  "ReadWriteOnce"\n+  "ReadWriteMany"\n  ],\n'
        '  "Selector": null,\n  "Resources": {\n']


def test_a_volume_without_capacity_is_told_what_to_have() -> None:
    assert "spec.capacity: Unsupported value: null: supported values: \"storage\"" in problems(
        "persistentvolumes", {"spec": {"accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})


def test_values_are_quoted_and_ordered_as_go_does() -> None:
    values = ('a"\\', "a\nb\x01\u00e9\u00a0", {"b": "<", "a": "&"}, {"B": 1, "A": None}, [None])
    assert [quote(value) for value in values] == [
        r'"a\"\\"', r'"a\nb\x01é\u00a0"', r'{"a":"\u0026","b":"\u003c"}', '{"B":1,"A":null}', "[null]"]


def test_a_role_ref_that_changes_is_shown_as_the_internal_struct() -> None:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    group = "rbac.authorization.k8s.io"
    old, _ = created("rolebindings", {"metadata": {"name": "b"}, "roleRef": ref}, group)
    _, errors = updated("rolebindings", old, {"roleRef": {"name": "z"}}, group)
    assert words([*errors]) == [
        'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"z"}: '
        "cannot change roleRef"]


def test_a_nodes_pod_cidr_stays_under_either_name() -> None:
    old, _ = created("nodes", {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24"}})
    _, errors = updated("nodes", old, {"spec": {"podCIDR": "10.2.0.0/24"}})
    assert words([*errors]) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid']


def test_a_jobs_template_that_changes_is_shown_as_the_internal_struct() -> None:
    template = {"metadata": {"labels": {"b": "c"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    old, _ = created("jobs", {"metadata": {"name": "j"}, "spec": {"template": template}}, "batch")
    changed = old["spec"]["template"] | {"spec": old["spec"]["template"]["spec"] | {"hostname": "h"}}
    _, errors = updated("jobs", old, {"spec": {"template": changed}}, "batch")
    (error,) = words([*errors])
    assert error.startswith('spec.template: Invalid value: {"labels":{"b":"c","batch.kubernetes.io/controller-uid":')
    assert '"Spec":{"Volumes":null,"InitContainers":null,"Containers":[{"Name":"c","Image":"i",' in error


def test_a_device_is_asked_for_once_unless_the_claim_says_more() -> None:
    requests = [{"name": "r", "exactly": {"deviceClassName": "x"}}]
    group = "resource.k8s.io"
    body = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}}
    claim, errors = created("resourceclaims", body, group)
    template, _ = created("resourceclaimtemplates", {"spec": {"spec": {"devices": {"requests": requests}}}}, group)
    wanted = [{"name": "r", "exactly": {"deviceClassName": "x", "allocationMode": "ExactCount", "count": 1}}]
    assert (errors, claim["spec"]["devices"]["requests"]) == ([], wanted)
    assert template["spec"]["spec"]["devices"]["requests"] == wanted


def test_a_device_request_says_what_it_asks_for() -> None:
    assert problems("resourceclaims", {"spec": {"devices": {"requests": [{"name": "r"}, {"exactly": {}}]}}},
                    "resource.k8s.io") == [
        "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        "spec.devices.requests[1].name: Required value",
        "spec.devices.requests[1].exactly.deviceClassName: Required value"]


@pytest.mark.parametrize(("cidrs", "said"), [
    (["10.0.0.0/16"], []),
    (["10.0.0.0/16", "fd00::/112"], []),
    (["10.1.0.0/16"], ['spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable']),
])
def test_a_service_cidr_may_only_gain_a_family(cidrs: list[str], said: list[str]) -> None:
    group = "networking.k8s.io"
    old, _ = created("servicecidrs", {"metadata": {"name": "k"}, "spec": {"cidrs": ["10.0.0.0/16"]}}, group)
    assert words([*updated("servicecidrs", old, {"spec": {"cidrs": cidrs}}, group)[1]]) == said
