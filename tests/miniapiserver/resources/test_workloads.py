"""Kinds that make pods: defaults, selectors, immutable fields, Tables."""

from typing import Any

import pytest

from miniapiserver.resources.workloads.cronjobs import schedule_words
from tests.miniapiserver.resources.writes import JSON, created, row_of, template, updated, words

MISMATCH = 'spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`'
SELECTOR = {"matchLabels": {"app": "x"}}


def workload(**spec: Any) -> JSON:
    return {"metadata": {"name": "w"}, "spec": {"selector": SELECTOR, "template": template()} | spec}


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "statefulsets", "daemonsets"])
def test_selector_must_match_the_template(plural: str) -> None:
    assert created(plural, workload(), "apps")[1] == []
    _, errors = created(plural, workload(selector={"matchLabels": {"app": "y"}}), "apps")
    assert words(errors) == [MISMATCH]
    _, errors = created(plural, workload(selector=None), "apps")
    # A DaemonSet is not told that it needs one (apps validation, ValidateDaemonSetSpec).
    assert words(errors) == ([] if plural == "daemonsets" else ["spec.selector: Required value"]) + [MISMATCH]
    _, errors = created(plural, workload(selector={}), "apps")
    assert "empty selector is invalid for" in words(errors)[0]


@pytest.mark.parametrize("plural", ["deployments", "replicasets", "daemonsets"])
def test_selector_is_immutable(plural: str) -> None:
    old, _ = created(plural, workload(template=template(app="x", b="c")), "apps")
    _, errors = updated(plural, old, {"spec": {"selector": {"matchLabels": {"b": "c"}}}}, "apps")
    assert words(errors) == ['spec.selector: Invalid value: {"matchLabels":{"b":"c"}}: field is immutable']


def test_deployment_defaults() -> None:
    obj, _ = created("deployments", workload(), "apps")
    spec = obj["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert "enableServiceLinks" not in spec["template"]["spec"]
    assert obj["metadata"]["generation"] == 1


def test_only_a_change_of_spec_or_annotations_is_a_generation_of_a_deployment() -> None:
    old, _ = created("deployments", workload(), "apps")
    assert updated("deployments", old, {"metadata": {"labels": {"a": "b"}}}, "apps")[0]["metadata"]["generation"] == 1
    assert updated("deployments", old, {"spec": {"replicas": 2}}, "apps")[0]["metadata"]["generation"] == 2
    assert (
        updated("deployments", old, {"metadata": {"annotations": {"a": "b"}}}, "apps")[0]["metadata"]["generation"] == 2
    )


def test_deployment_strategy_rules() -> None:
    _, errors = created("deployments", workload(strategy={"type": "Recreate", "rollingUpdate": {}}), "apps")
    assert words(errors) == [
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
    rolling = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}
    assert words(created("deployments", workload(strategy=rolling), "apps")[1]) == [
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]


def test_negative_replicas() -> None:
    assert words(created("deployments", workload(replicas=-1), "apps")[1]) == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"]


def test_pods_of_a_deployment_restart_for_ever() -> None:
    once = template() | {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a"}]}}
    assert words(created("deployments", workload(template=once), "apps")[1]) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']


def test_status_of_a_deployment_keeps_spec_and_labels() -> None:
    old, _ = created("deployments", workload() | {"metadata": {"name": "w", "labels": {"a": "b"}}}, "apps")
    change = {"metadata": {"name": "w", "namespace": "golden", "uid": "0000-1111", "labels": {"c": "d"}},
              "spec": {"replicas": 9}, "status": {"replicas": 1, "readyReplicas": 2}}
    obj, errors = updated("deployments", old, change, "apps", subresource="status")
    assert obj["spec"]["replicas"] == 1
    assert obj["metadata"]["labels"] == {"a": "b"}
    assert words(errors) == ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]


def test_statefulset_spec_is_mostly_immutable() -> None:
    old, errors = created("statefulsets", workload(serviceName="s"), "apps")
    assert errors == []
    assert old["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert updated("statefulsets", old, {"spec": {"replicas": 3}}, "apps")[1] == []
    _, errors = updated("statefulsets", old, {"spec": {"serviceName": "t"}}, "apps")
    assert words(errors) == [
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
        "'minReadySeconds' are forbidden"
    ]


def test_a_daemonset_counts_its_templates_in_an_annotation() -> None:
    old, _ = created("daemonsets", workload(), "apps")
    key = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"] == {key: "1"}
    obj, _ = updated("daemonsets", old, {"spec": {"template": template(app="x", v="2")}}, "apps")
    assert obj["metadata"]["annotations"] == {key: "2"}
    assert old["status"] == {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    }


def test_a_replication_controller_takes_selector_and_labels_from_its_template() -> None:
    obj, errors = created("replicationcontrollers", {"metadata": {"name": "r"}, "spec": {"template": template()}})
    assert errors == []
    assert obj["spec"]["selector"] == {"app": "x"}
    assert obj["metadata"]["labels"] == {"app": "x"}


def job(**spec: Any) -> JSON:
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a:1"}]}}
    return {"metadata": {"name": "j", "uid": "u-1"}, "spec": {"template": pod} | spec}


def test_a_job_gets_a_selector_of_its_own() -> None:
    obj, errors = created("jobs", job(), "batch")
    assert errors == []
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert obj["spec"]["template"]["metadata"]["labels"] == {
        "controller-uid": "u-1",
        "batch.kubernetes.io/controller-uid": "u-1",
        "job-name": "j",
        "batch.kubernetes.io/job-name": "j",
    }
    spec = {key: obj["spec"][key] for key in ("completions", "parallelism", "backoffLimit", "completionMode", "suspend",
                                              "podReplacementPolicy", "manualSelector")}
    assert spec == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
        "manualSelector": False,
    }


def test_a_jobs_pods_must_end() -> None:
    body = job(template={"spec": {"containers": [{"name": "c", "image": "a"}]}})
    assert words(created("jobs", body, "batch")[1]) == [
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']


def test_a_jobs_template_and_completions_are_immutable() -> None:
    old, _ = created("jobs", job(), "batch")
    _, errors = updated("jobs", old, {"spec": {"completions": 2}}, "batch")
    assert words(errors) == ["spec.completions: Invalid value: 2: field is immutable"]
    assert updated("jobs", old, {"spec": {"parallelism": 3, "suspend": True}}, "batch")[1] == []


def test_an_indexed_job_may_grow_with_its_parallelism() -> None:
    old, errors = created("jobs", job(completionMode="Indexed", completions=2, parallelism=2), "batch")
    assert errors == []
    assert updated("jobs", old, {"spec": {"completions": 3, "parallelism": 3}}, "batch")[1] == []
    assert updated("jobs", old, {"spec": {"completions": 3}}, "batch")[1] != []


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        ("*/5 * * * *", ""),
        ("@daily", ""),
        ("@every 1h", ""),
        ("0 9-17 * * mon-fri", ""),
        ("0 0 1 jan,jun ?", ""),
        ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("@sometimes", "unrecognized descriptor: @sometimes"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
    ],
)
def test_cron_lines(schedule: str, wrong: str) -> None:
    assert schedule_words(schedule) == wrong


def test_cronjob_defaults_and_rules() -> None:
    spec: JSON = {"schedule": "* * * * *", "jobTemplate": {"spec": job()["spec"]}}
    body: JSON = {"metadata": {"name": "c"}, "spec": spec}
    obj, errors = created("cronjobs", body, "batch")
    assert errors == []
    shown = obj["spec"]
    assert (shown["concurrencyPolicy"], shown["suspend"], shown["failedJobsHistoryLimit"]) == ("Allow", False, 1)
    spec["schedule"] = "TZ=UTC * * * * *"
    assert words(created("cronjobs", body, "batch")[1]) == [
        'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, '
        'use timeZone field instead'
    ]


def test_tables_of_workloads() -> None:
    status = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    obj = {
        "metadata": {"name": "w"},
        "spec": {"replicas": 3, "selector": SELECTOR, "template": template()},
        "status": status,
    }
    assert row_of("deployments", "apps").table.cells(obj, 0) == [
        "w", "2/3", 3, 2, "<unknown>", "c", "busybox:1", "app=x"]
    assert row_of("replicasets", "apps").table.cells(obj, 0) == ["w", 3, 3, 2, "<unknown>", "c", "busybox:1", "app=x"]
    assert row_of("statefulsets", "apps").table.cells(obj, 0) == ["w", "2/3", "<unknown>", "c", "busybox:1"]


def test_table_of_jobs() -> None:
    done = {"succeeded": 1, "startTime": "1970-01-01T00:00:00Z", "completionTime": "1970-01-01T00:00:09Z",
            "conditions": [{"type": "Complete", "status": "True"}]}
    obj = {"metadata": {"name": "j"}, "spec": {"completions": 1, "template": template()}, "status": done}
    assert row_of("jobs", "batch").table.cells(obj, 100)[:5] == ["j", "Complete", "1/1", "9s", "<unknown>"]
