"""Options of writes: what may stand in the query and in DeleteOptions.

My job: query parameters → WriteOptions, DeleteOptions, checked in upstream's words
(`apimachinery/pkg/apis/meta/v1/validation`). Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniapiserver.errors import BadRequest, FieldError, Invalid, invalid, not_supported, quote, required
from miniapiserver.request import Request

JSON = dict[str, Any]

FIELD_VALIDATION = ("Ignore", "Strict", "Warn")
LONGEST_MANAGER = 128
PROPAGATION = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    dry_run: bool
    field_manager: str
    field_validation: str
    force: bool | None


def write_options(request: Request, kind: str, *, is_apply: bool = False) -> WriteOptions:
    """`kind` is CreateOptions, UpdateOptions or PatchOptions. Raises Invalid."""
    errors: list[FieldError] = []
    force = request.flag("force") if "force" in request.query else None
    manager = request.query.get("fieldManager", "")
    if kind == "PatchOptions":
        if is_apply and not manager:
            errors.append(required("fieldManager", "is required for apply patch"))
        if not is_apply and force is not None:
            errors.append(FieldError("force", "FieldValueForbidden",
                                     "Forbidden: may not be specified for non-apply patch"))
    errors += _manager_problems(manager)
    errors += _dry_run_problems(request.all("dryRun"))
    validation = request.query.get("fieldValidation", "")
    if validation and validation not in FIELD_VALIDATION:
        errors.append(not_supported("fieldValidation", validation, FIELD_VALIDATION))
    if errors:
        raise Invalid.fields(kind, "meta.k8s.io", "", errors)
    return WriteOptions("dryRun" in request.query, manager or default_manager(request.user_agent),
                        validation or "Warn", force)


def default_manager(user_agent: str) -> str:
    """The first word of the User-Agent up to its slash, `unknown` without one (`managedfields.go
    prefixFromUserAgent`)."""
    prefix = user_agent.split("/")[0][:LONGEST_MANAGER]
    return "".join(char for char in prefix if char.isprintable()) or "unknown"


def _manager_problems(manager: str) -> list[FieldError]:
    problems = []
    if len(manager.encode()) > LONGEST_MANAGER:
        problems.append(FieldError("fieldManager", "FieldValueTooLong",
                                   f"Too long: may not be more than {LONGEST_MANAGER} bytes"))
    for position, char in enumerate(manager):
        if not char.isprintable():
            problems.append(invalid("fieldManager", manager,
                                    f"invalid character U+{ord(char):04X} (at position {position})"))
            break
    return problems


def _dry_run_problems(values: list[str]) -> list[FieldError]:
    if not values or values == ["All"]:
        return []
    if set(values) == {"All"}:
        return []
    return [FieldError("dryRun", "FieldValueNotSupported",
                       f'Unsupported value: [{",".join(quote(v) for v in values)}]: supported values: "All"')]


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace` None: the kind's own. `propagation` "" : the kind's own."""

    dry_run: bool = False
    grace: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation: str = ""


def delete_options(query: Mapping[str, str], dry_run_values: list[str], body: JSON | None) -> DeleteOptions:
    """From the body if there is one, else from the query. Raises Invalid, BadRequest."""
    if body is None:
        body = {}
        if "gracePeriodSeconds" in query:
            body["gracePeriodSeconds"] = _integer(query["gracePeriodSeconds"])
        if "propagationPolicy" in query:
            body["propagationPolicy"] = query["propagationPolicy"]
        if "orphanDependents" in query:
            body["orphanDependents"] = query["orphanDependents"] not in ("0", "false")
        if dry_run_values:
            body["dryRun"] = dry_run_values
    problems = _delete_problems(body)
    if problems:
        raise Invalid.fields("DeleteOptions", "meta.k8s.io", "", problems)
    conditions = body.get("preconditions") or {}
    orphan = body.get("orphanDependents")
    propagation = body.get("propagationPolicy") or ("" if orphan is None else "Orphan" if orphan else "Background")
    grace = body.get("gracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        grace = 1  # what a negative grace has always meant (`rest.BeforeDelete`)
    return DeleteOptions(bool(body.get("dryRun") or dry_run_values), grace,
                         conditions.get("uid"), conditions.get("resourceVersion"), propagation)


def _delete_problems(body: JSON) -> list[FieldError]:
    problems = _dry_run_problems(body.get("dryRun") or [])
    policy = body.get("propagationPolicy")
    if policy and body.get("orphanDependents") is not None:
        problems.append(invalid("propagationPolicy", policy,
                                "orphanDependents and deletionPropagation cannot be both set"))
    elif policy and policy not in PROPAGATION:
        problems.append(not_supported("propagationPolicy", policy, (*PROPAGATION, "nil")))
    return problems


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    if len(text) > 64 or not -1 << 63 <= int(text) < 1 << 63:
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return int(text)
