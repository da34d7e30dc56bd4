"""Which webhooks want to see which write.

My job: the rules, selectors and match policy of webhook configurations against one write (apiserver
`admission/plugin/webhook/{rules,predicates,generic}`). Pure, but for looking up the namespace's labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniapiserver.admission.interface import Attributes
from miniapiserver.registry.objects import Objects
from miniapiserver.resources.resource import Resource, TypeTable
from miniapiserver.selectors import label_selector_from

JSON = dict[str, Any]

GROUP = "admissionregistration.k8s.io"
#: Never sent to anybody: a webhook must not be able to keep itself from being removed.
EXEMPT = frozenset(("validatingwebhookconfigurations", "mutatingwebhookconfigurations",
                    "validatingadmissionpolicies", "validatingadmissionpolicybindings"))


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of a configuration. `configuration` is its object's name."""

    configuration: str
    body: JSON

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def may_fail(self) -> bool:
        return self.body.get("failurePolicy") == "Ignore"

    @property
    def timeout(self) -> float:
        return float(self.body.get("timeoutSeconds") or 10)

    @property
    def has_side_effects(self) -> bool:
        return self.body.get("sideEffects") not in ("None", "NoneOnDryRun")


def webhooks_of(configurations: list[JSON]) -> list[Webhook]:
    """In the order of upstream: by configuration name, then as listed."""
    ordered = sorted(configurations, key=lambda item: str(item["metadata"]["name"]))
    return [Webhook(item["metadata"]["name"], body) for item in ordered for body in item.get("webhooks") or ()]


class Matcher:
    """Lives as long as the server."""

    def __init__(self, objects: Objects, table: TypeTable) -> None:
        self._objects, self._table = objects, table

    def match(self, webhook: Webhook, asked: Attributes) -> Resource | None:
        """The version of the resource the webhook wants to be shown, None if it does not want this write."""
        if asked.row.group == GROUP and asked.row.plural in EXEMPT:
            return None
        row = self._row(webhook, asked)
        if row is None or not self._namespace_matches(webhook, asked) or not _object_matches(webhook, asked):
            return None
        return row

    def _row(self, webhook: Webhook, asked: Attributes) -> Resource | None:
        rules = webhook.body.get("rules") or ()
        if any(rule_matches(rule, asked, asked.row) for rule in rules):
            return asked.row
        if webhook.body.get("matchPolicy", "Equivalent") != "Equivalent" or not asked.row.storage:
            return None
        for row in self._table.rows():
            is_another = row.storage == asked.row.storage and row is not asked.row
            if is_another and any(rule_matches(rule, asked, row) for rule in rules):
                return row
        return None

    def _namespace_matches(self, webhook: Webhook, asked: Attributes) -> bool:
        selector = label_selector_from(webhook.body.get("namespaceSelector") or {})
        if asked.row.plural == "namespaces" and not asked.row.group:
            labels = _labels(asked.obj if asked.obj is not None else asked.old)
        elif not asked.row.namespaced:
            return True
        else:
            labels = _labels(self._objects.get("namespaces", "", asked.namespace))
        return selector is not None and selector.matches(labels)


def rule_matches(rule: Mapping[str, Any], asked: Attributes, row: Resource) -> bool:
    scope = rule.get("scope") or "*"
    # A Namespace itself is cluster scoped, although requests about it carry its name as their namespace.
    if scope != "*" and (scope == "Namespaced") != row.namespaced:
        return False
    return (_has(rule.get("apiGroups"), row.group) and _has(rule.get("apiVersions"), row.version)
            and _has(rule.get("operations"), asked.operation.value)
            and any(_resource_matches(str(item), row.plural, asked.subresource)
                    for item in rule.get("resources") or ()))


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    """`*` is every resource without subresources, `*/*` everything, `pods/*` a pod's subresources and the pod."""
    resource, slash, sub = pattern.partition("/")
    if resource not in ("*", plural):
        return False
    return sub in ("*", subresource) if slash else not subresource


def _has(values: list[str] | None, value: str) -> bool:
    return any(item in ("*", value) for item in values or ())


def _object_matches(webhook: Webhook, asked: Attributes) -> bool:
    """Before or after the change is enough, so that nobody slips away by taking a label off."""
    chosen = webhook.body.get("objectSelector") or {}
    selector = label_selector_from(chosen)
    if not chosen:
        return True
    found = [item for item in (asked.obj, asked.old) if item is not None]
    return selector is not None and any(selector.matches(_labels(item)) for item in found)


def _labels(obj: JSON | None) -> dict[str, str]:
    return ((obj or {}).get("metadata") or {}).get("labels") or {}
