"""Jobs."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    age,
    column,
    container_cells,
    duration,
    seconds_of,
    selector_text,
    table,
)
from miniapiserver.resources.kinds import Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.pods.specdiff import internal_template
from miniapiserver.resources.pods.template import template_errors
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource, WriteContext
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.values import (
    IMMUTABLE,
    count_errors,
    default_template_of,
    immutable_errors,
    match_errors,
)

JSON = dict[str, Any]

UID_LABEL, NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
_OLD_UID_LABEL, _OLD_NAME_LABEL = "controller-uid", "job-name"
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
           "maxFailedIndexes", "backoffLimitPerIndex")
_MAX_INT32 = 2**31 - 1
_FIXED = ("podFailurePolicy", "backoffLimitPerIndex", "successPolicy", "managedBy")


class JobStrategy(ObjectStrategy):
    default_propagation = "orphan"  # as batch/v1 has always done

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("completions") is None and spec.get("parallelism") is None:
            spec["completions"] = spec["parallelism"] = 1
        limit = 6 if spec.get("backoffLimitPerIndex") is None else _MAX_INT32
        replacement = "TerminatingOrFailed" if spec.get("podFailurePolicy") is None else "Failed"
        for key, value in (("parallelism", 1), ("backoffLimit", limit), ("completionMode", "NonIndexed"),
                           ("suspend", False), ("manualSelector", False), ("podReplacementPolicy", replacement)):
            if spec.get(key) is None:
                spec[key] = value
        default_template(default_template_of(spec))
        meta = obj.setdefault("metadata", {})
        if not meta.get("labels") and (labels := spec["template"]["metadata"].get("labels")):
            meta["labels"] = dict(labels)

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        super().prepare_for_create(obj, context)
        spec, meta = obj["spec"], metadata_of(obj)
        if not spec.get("manualSelector"):
            is_named_by_template = meta.get("labels") == spec["template"]["metadata"].get("labels")
            generate_selector(spec, meta.get("uid") or "", meta.get("name") or "")
            if is_named_by_template:  # upstream's defaulting lets both share one map
                meta["labels"] = dict(spec["template"]["metadata"]["labels"])

    def validate(self, obj: JSON) -> list[FieldError]:
        spec, meta = obj.get("spec") or {}, metadata_of(obj)
        generated = [] if spec.get("manualSelector") else _generated_errors(spec, meta)
        return self.metadata_rules(meta) + generated + self.check(obj)

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = _job_spec_errors(spec, "spec")
        if (selector := spec.get("selector")) is None:
            return [*errors, required("spec.selector"), *match_errors(spec)]
        return errors + label_selector_errors(selector, "spec.selector") + match_errors(spec)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        errors += _completion_errors(spec, old_spec)
        errors += immutable_errors(spec, old_spec, "selector")
        if not old_spec.get("suspend") or (old.get("status") or {}).get("startTime"):
            if (spec.get("template") or None) != (old_spec.get("template") or None):
                errors.append(invalid("spec.template", internal_template(spec.get("template") or {}), IMMUTABLE))
        else:
            errors += _suspended_template_errors(spec, old_spec)
        errors += immutable_errors(spec, old_spec, "completionMode")
        for key in _FIXED:
            errors += immutable_errors(spec, old_spec, key)
        return errors

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        return count_errors(
            obj.get("status") or {}, ("active", "succeeded", "failed", "ready", "terminating"), "status"
        )


def generate_selector(spec: JSON, uid: str, name: str) -> None:
    """Give the pods labels that name their Job, and select them by its uid. What the user set stays, to be refused."""
    template = spec["template"]
    labels = template["metadata"]["labels"] = dict(template["metadata"].get("labels") or {})
    for key, value in ((_OLD_UID_LABEL, uid), (_OLD_NAME_LABEL, name), (UID_LABEL, uid), (NAME_LABEL, name)):
        labels.setdefault(key, value)
    selector = spec["selector"] = dict(spec.get("selector") or {})
    selector["matchLabels"] = dict(selector.get("matchLabels") or {})
    selector["matchLabels"].setdefault(UID_LABEL, uid)


def _generated_errors(spec: JSON, meta: JSON) -> list[FieldError]:
    """Labels that a user set by hand must say what would have been generated."""
    errors: list[FieldError] = []
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    expected = ((_OLD_UID_LABEL, meta.get("uid") or ""), (_OLD_NAME_LABEL, meta.get("name") or ""),
                (UID_LABEL, meta.get("uid") or ""), (NAME_LABEL, meta.get("name") or ""))
    for key, value in expected:
        if key not in labels:
            errors.append(required(f"spec.template.metadata.labels[{key}]", f"must be '{value}'"))
        elif labels[key] != value:
            errors.append(invalid(f"spec.template.metadata.labels[{key}]", labels, f"must be '{value}'"))
    chosen = ((spec.get("selector") or {}).get("matchLabels") or {}).get(UID_LABEL)
    if chosen is not None and chosen != (meta.get("uid") or ""):
        errors.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return errors


def _job_spec_errors(spec: JSON, path: str) -> list[FieldError]:
    errors = count_errors(spec, _COUNTS, path)
    mode = spec.get("completionMode")
    if mode is not None:
        if mode not in ("NonIndexed", "Indexed"):
            errors.append(not_supported(f"{path}.completionMode", mode, ("Indexed", "NonIndexed")))
        elif mode == "Indexed" and spec.get("completions") is None:
            errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if spec.get("backoffLimitPerIndex") is not None and mode != "Indexed":
        errors.append(
            invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode")
        )
    template = spec.get("template") or {}
    errors += template_errors(template, f"{path}.template")
    if (template.get("spec") or {}).get("restartPolicy") not in ("OnFailure", "Never"):
        errors.append(required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    elif spec.get("podFailurePolicy") is not None and template["spec"]["restartPolicy"] != "Never":
        errors.append(invalid(f"{path}.template.spec.restartPolicy", template["spec"]["restartPolicy"],
                              "only \"Never\" is supported when podFailurePolicy is specified"))
    return errors


def template_job_errors(spec: JSON, path: str) -> list[FieldError]:
    """A Job inside a CronJob: its selector is made later."""
    errors = (
        [invalid(f"{path}.selector", spec["selector"], "`selector` will be auto-generated")]
        if spec.get("selector")
        else []
    )
    if spec.get("manualSelector"):
        errors.append(not_supported(f"{path}.manualSelector", True, ("nil", "false")))
    return errors + _job_spec_errors(spec, path)


def _completion_errors(spec: JSON, old: JSON) -> list[FieldError]:
    """Only an Indexed Job whose parallelism moves along may change its completions."""
    new, before = spec.get("completions"), old.get("completions")
    if new == before:
        return []
    if old.get("completionMode") == "Indexed" and new is not None and new == spec.get("parallelism") \
            and before == old.get("parallelism"):
        return []
    words = (
        "can only be modified in tandem with spec.parallelism" if old.get("completionMode") == "Indexed" else IMMUTABLE
    )
    return [invalid("spec.completions", new, words)]


def _suspended_template_errors(spec: JSON, old: JSON) -> list[FieldError]:
    """A suspended Job that never ran may still be told where to run."""
    new, before = dict(spec.get("template") or {}), old.get("template") or {}
    kept = before.get("spec") or {}
    new["metadata"] = before.get("metadata")
    new["spec"] = dict(new.get("spec") or {})
    for key in ("nodeSelector", "affinity", "tolerations", "schedulingGates"):
        new["spec"].pop(key, None)
        if key in kept:
            new["spec"][key] = kept[key]
    return [] if new["spec"] == kept else [invalid("spec.template", spec.get("template"), IMMUTABLE)]


_WORDS = (("Complete", "Complete"), ("Failed", "Failed"))
_LATER_WORDS = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def _status_word(job: JSON) -> str:
    true = {
        item.get("type")
        for item in objects((job.get("status") or {}).get("conditions"))
        if item.get("status") == "True"
    }
    for kind, word in _WORDS:
        if kind in true:
            return word
    if metadata_of(job).get("deletionTimestamp"):
        return "Terminating"
    return next((word for word in _LATER_WORDS if word in true), "Running")


def _completions(spec: JSON, status: JSON) -> str:
    done, parallelism = status.get("succeeded") or 0, spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(status: JSON, now: float) -> str:
    start = seconds_of(status["startTime"]) if status.get("startTime") else None
    if start is None:
        return ""
    end = seconds_of(status["completionTime"]) if status.get("completionTime") else now
    return duration((end or now) - start)


def _cells(job: JSON, now: float) -> list[Any]:
    spec, status = job.get("spec") or {}, job.get("status") or {}
    return [_status_word(job), _completions(spec, status), _duration(status, now), age(job, now),
            *container_cells(spec.get("template")), selector_text(spec.get("selector"))]


_TABLE = table(
    column("Status", "Status of the job."), column("Completions", "JobStatus.succeeded"),
    column("Duration", "Time required to complete the job."), AGE, CONTAINERS, IMAGES,
    column("Selector", "JobSpec.selector", wide=True), cells=_cells)


def job_row(group: Group) -> Resource:
    return group.row("Job", "jobs", JobStrategy(status=True, generation=True), table=_TABLE, categories=("all",),
                     subresources=(status_of("Job"),), fields=("status.successful",),
                     selectable=select({"status.successful": ("status", "succeeded")}, {"status.successful": "0"}))
