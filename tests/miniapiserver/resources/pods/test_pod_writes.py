"""Pods as they are created. Texts and values were recorded from Kubernetes 1.36."""

from typing import Any

import pytest

from miniapiserver.resources.pods.defaults import pull_policy
from miniapiserver.resources.pods.resources import qos_class
from tests.miniapiserver.resources.test_metadata import LABEL_WORDS
from tests.miniapiserver.resources.writes import created, message, pod, words


def errors_of(**spec: Any) -> list[str]:
    return words(created("pods", pod(**spec))[1])


def test_a_plain_pod_gets_upstreams_defaults() -> None:
    obj, errors = created("pods", pod(nodeName="golden-node", automountServiceAccountToken=False))
    assert errors == []
    assert obj["spec"] == {
        "automountServiceAccountToken": False,
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "nodeName": "golden-node",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "containers": [
            {
                "image": "busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "name": "c",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
    }
    assert obj["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert obj["metadata"]["generation"] == 1


def test_a_clients_status_is_dropped() -> None:
    obj, _ = created("pods", pod() | {"status": {"phase": "Running"}})
    assert obj["status"]["phase"] == "Pending"


def test_a_pod_without_containers() -> None:
    _, errors = created("pods", {"metadata": {"name": "bad"}, "spec": {"containers": []}})
    assert message("pods", errors, "bad") == 'Pod "bad" is invalid: spec.containers: Required value'


def test_a_pod_without_spec_is_refused_in_the_same_words() -> None:
    _, errors = created("pods", {"metadata": {"name": "bad"}})
    assert words(errors) == ["spec.containers: Required value"]


def test_a_bad_name_and_no_image() -> None:
    _, errors = created("pods", pod(containers=[{"name": "C!", "image": ""}]))
    assert message("pods", errors, "bad") == (
        f'Pod "bad" is invalid: [spec.containers[0].name: Invalid value: "C!": {LABEL_WORDS}, '
        "spec.containers[0].image: Required value]")


@pytest.mark.parametrize(("image", "policy"), [
    ("busybox", "Always"), ("busybox:latest", "Always"), ("busybox:1", "IfNotPresent"), ("reg:5000/a", "Always"),
    ("reg:5000/a:1", "IfNotPresent"), ("a@sha256:00", "IfNotPresent")])
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_probe_volume_env_and_port_defaults() -> None:
    obj, errors = created("pods", pod(
        containers=[{"name": "c", "image": "a", "ports": [{"containerPort": 80}],
                     "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                             {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                     "readinessProbe": {"httpGet": {"port": 80}},
                     "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        volumes=[{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}},
                 {"name": "t", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]))
    container = obj["spec"]["containers"][0]
    assert errors == []
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"
    assert container["readinessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                                           "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert obj["spec"]["volumes"] == [
        {"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "t", "projected": {"sources": [{"configMap": {"name": "m"}}], "defaultMode": 420}}]


def test_requests_follow_limits_and_host_ports_follow_ports_on_the_hosts_network() -> None:
    obj, errors = created("pods", pod(hostNetwork=True, containers=[
        {"name": "c", "image": "a", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1000m"}}}]))
    container = obj["spec"]["containers"][0]
    assert errors == []
    assert container["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert container["ports"][0]["hostPort"] == 80


def test_the_old_name_of_service_accounts_is_kept_in_step() -> None:
    obj, _ = created("pods", pod(serviceAccount="robot"))
    assert obj["spec"]["serviceAccountName"] == "robot"


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (
            {"restartPolicy": "Sometimes"},
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
        ),
        ({"nodeName": "Bad!"}, 'spec.nodeName: Invalid value: "Bad!": a lowercase RFC 1123 subdomain'),
        (
            {"activeDeadlineSeconds": 0},
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            {"tolerations": [{"operator": "Exists", "tolerationSeconds": 1}]},
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when "
            "`tolerationSeconds` is set",
        ),
        ({"volumes": [{"name": "v", "secret": {}}]}, "spec.volumes[0].secret.secretName: Required value"),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]},
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]},
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            {"ephemeralContainers": [{"name": "e", "image": "a"}]},
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            {"schedulingGates": [{"name": "a/b"}], "nodeName": "n"},
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
        ({"dnsPolicy": "None"}, "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
    ],
)
def test_specs_that_are_refused(spec: dict[str, Any], wrong: str) -> None:
    assert any(text.startswith(wrong) for text in errors_of(**spec)), errors_of(**spec)


@pytest.mark.parametrize(
    ("container", "wrong"),
    [
        ({"ports": [{"containerPort": 0}]}, "ports[0].containerPort: Required value"),
        (
            {"ports": [{"containerPort": 70000}]},
            "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            {"ports": [{"containerPort": 1, "protocol": "X"}]},
            'ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
        ),
        ({"env": [{"value": "x"}]}, "env[0].name: Required value"),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            'env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, '
            '`configMapKeyRef`, '
            "`secretKeyRef` or `fileKeyRef`",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]},
            'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting '
            'fieldPath: field label not supported: '
            "spec.nope",
        ),
        ({"volumeMounts": [{"name": "absent", "mountPath": "/x"}]}, 'volumeMounts[0].name: Not found: "absent"'),
        (
            {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
            'resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"resources": {"limits": {"cpu": "-1"}}},
            'resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        ({"livenessProbe": {}}, "livenessProbe: Required value: must specify a handler type"),
        (
            {"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}},
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            {"imagePullPolicy": "Maybe"},
            'imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"',
        ),
        ({"image": " a"}, 'image: Invalid value: " a": must not have leading or trailing whitespace'),
    ],
)
def test_containers_that_are_refused(container: dict[str, Any], wrong: str) -> None:
    assert f"spec.containers[0].{wrong}" in errors_of(containers=[{"name": "c", "image": "a"} | container])


def test_names_are_unique_across_containers() -> None:
    assert errors_of(initContainers=[{"name": "c", "image": "a"}]) == [
        'spec.initContainers[0].name: Duplicate value: "c"'
    ]


def test_init_containers_may_not_be_probed_unless_they_are_sidecars() -> None:
    probed = {"name": "i", "image": "a", "readinessProbe": {"exec": {"command": ["a"]}}}
    assert errors_of(initContainers=[probed | {"restartPolicy": "Always"}]) == []
    assert errors_of(initContainers=[probed]) == [
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers "
        "without restartPolicy=Always"
    ]


def test_quality_of_service() -> None:
    def spec(resources: dict[str, Any]) -> dict[str, Any]:
        return {"containers": [{"name": "c", "resources": resources}]}

    both = {"cpu": "1", "memory": "1Gi"}
    assert qos_class(spec({})) == "BestEffort"
    assert qos_class(spec({"limits": both, "requests": both})) == "Guaranteed"
    assert qos_class(spec({"requests": {"cpu": "1"}})) == "Burstable"


def test_a_gated_pod_says_so() -> None:
    obj, errors = created("pods", pod(schedulingGates=[{"name": "example.com/wait"}]))
    assert errors == []
    assert obj["status"]["conditions"][0]["reason"] == "SchedulingGated"
