"""admissionregistration.k8s.io/v1: webhooks and admission policies."""

from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.names import dns_subdomain
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource, Table
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

ADMISSION = Group("admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_FAILURE = ("Fail", "Ignore")
_EFFECTS = ("None", "NoneOnDryRun")
_VERSIONS = ("v1", "v1beta1")


class _ContentStrategy(ObjectStrategy):
    """Kinds whose generation counts changes of `content`."""

    content = "spec"

    def __init__(self, status: bool = False) -> None:
        super().__init__(namespaced=False, generation=True, status=status, unconditional_update=False)

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        return (obj.get(self.content) or None) != (old.get(self.content) or None)


class WebhookStrategy(_ContentStrategy):
    content = "webhooks"

    def __init__(self, mutating: bool) -> None:
        super().__init__()
        self.mutating = mutating

    def default(self, obj: JSON) -> None:
        for webhook in obj.get("webhooks") or ():
            if webhook is not None:
                self._default_webhook(webhook)

    def _default_webhook(self, webhook: JSON) -> None:
        for key, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10)):
            if webhook.get(key) is None:
                webhook[key] = value
        for key in ("namespaceSelector", "objectSelector"):
            webhook[key] = webhook.get(key) or {}
        if self.mutating and webhook.get("reinvocationPolicy") is None:
            webhook["reinvocationPolicy"] = "Never"
        config = webhook["clientConfig"] = webhook.get("clientConfig") or {}
        if (service := config.get("service")) is not None and service.get("port") is None:
            service["port"] = 443
        for rule in webhook.get("rules") or ():
            if rule is not None and rule.get("scope") is None:
                rule["scope"] = "*"

    def check(self, obj: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        names: set[str] = set()
        for index, webhook in enumerate(objects(obj.get("webhooks"))):
            path, name = f"webhooks[{index}]", webhook.get("name") or ""
            errors += _webhook_errors(webhook, path)
            if name in names:
                errors.append(duplicate(f"{path}.name", name))
            names.add(name)
        return errors


def _webhook_errors(webhook: JSON, path: str) -> list[FieldError]:
    name = webhook.get("name") or ""
    errors = [invalid(f"{path}.name", name, ",".join(words)) for words in [dns_subdomain(name)] if name and words]
    if not name:
        errors.append(required(f"{path}.name"))
    elif not errors and name.count(".") < 2:
        errors.append(
            invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
        )
    for index, rule in enumerate(objects(webhook.get("rules"))):
        errors += _rule_errors(rule, f"{path}.rules[{index}]")
    if (policy := webhook.get("failurePolicy")) not in (None, *_FAILURE):
        errors.append(not_supported(f"{path}.failurePolicy", policy, _FAILURE))
    if (match := webhook.get("matchPolicy")) not in (None, "Equivalent", "Exact"):
        errors.append(not_supported(f"{path}.matchPolicy", match, ("Equivalent", "Exact")))
    if not (effects := webhook.get("sideEffects")):
        errors.append(required(f"{path}.sideEffects", 'must specify one of None, NoneOnDryRun'))
    elif effects not in _EFFECTS:
        errors.append(not_supported(f"{path}.sideEffects", effects, _EFFECTS))
    seconds = webhook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        errors.append(invalid(f"{path}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds"))
    for key in ("namespaceSelector", "objectSelector"):
        errors += label_selector_errors(webhook.get(key), f"{path}.{key}")
    return (
        errors
        + _client_errors(webhook.get("clientConfig") or {}, f"{path}.clientConfig")
        + _version_errors(webhook, path)
    )


def _version_errors(webhook: JSON, path: str) -> list[FieldError]:
    versions = webhook.get("admissionReviewVersions") or []
    where = f"{path}.admissionReviewVersions"
    if not versions:
        return [required(where, "must specify one of v1, v1beta1")]
    if not any(version in _VERSIONS for version in versions):
        return [invalid(where, versions, "must include at least one of v1, v1beta1")]
    return []


def _client_errors(config: JSON, path: str) -> list[FieldError]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [required(path, "exactly one of url or service is required")]
    if service is not None:
        errors = [required(f"{path}.service.{key}") for key in ("name", "namespace") if not service.get(key)]
        port = service.get("port")
        if port is not None and not 1 <= port <= 65535:
            errors.append(
                invalid(f"{path}.service.port", port, "port is not valid: must be between 1 and 65535, inclusive")
            )
        return errors
    if not (url or "").startswith("https://"):
        return [invalid(f"{path}.url", url, "'https' is the only allowed URL scheme; desired format: https://host[/path]")]
    return []


def _rule_errors(rule: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("operations", "apiGroups", "apiVersions", "resources"):
        listed = rule.get(key) or []
        if not listed:
            errors.append(required(f"{path}.{key}"))
        if "*" in listed and len(listed) > 1 and key != "resources":
            errors.append(invalid(f"{path}.{key}", listed, "if '*' is present, must not specify other "
                                                           + {"operations": "operations", "apiGroups": "API groups",
                                                              "apiVersions": "API versions"}[key]))
    errors += [not_supported(f"{path}.operations[{index}]", word or "", _OPERATIONS)
               for index, word in enumerate(rule.get("operations") or ()) if word not in _OPERATIONS]
    if (scope := rule.get("scope")) not in (None, "*", "Cluster", "Namespaced"):
        errors.append(not_supported(f"{path}.scope", scope, ("*", "Cluster", "Namespaced")))
    return errors


class PolicyStrategy(_ContentStrategy):
    """Admission policies. Their CEL expressions are not compiled here."""

    def __init__(self, rules: str, status: bool) -> None:
        super().__init__(status=status)
        self.rules = rules

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        if (match := spec.get("matchConstraints")) is not None:
            _default_match(match)

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        if (policy := spec.get("failurePolicy")) not in (None, *_FAILURE):
            errors.append(not_supported("spec.failurePolicy", policy, _FAILURE))
        if spec.get("matchConstraints") is None:
            errors.append(required("spec.matchConstraints"))
        elif not spec["matchConstraints"].get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
        else:
            for index, rule in enumerate(objects(spec["matchConstraints"]["resourceRules"])):
                errors += _rule_errors(rule, f"spec.matchConstraints.resourceRules[{index}]")
        if not spec.get(self.rules) and not spec.get("auditAnnotations"):
            errors.append(
                required(
                    f"spec.{self.rules}",
                    f"{self.rules} or auditAnnotations must contain at least one item"
                    if self.rules == "validations"
                    else "must contain at least one item",
                )
            )
        return errors + [
            required(f"spec.validations[{index}].expression", "expression is not specified")
            for index, item in enumerate(objects(spec.get("validations")))
            if not (item.get("expression") or "").strip()
        ]


def _default_match(match: JSON) -> None:
    if match.get("matchPolicy") is None:
        match["matchPolicy"] = "Equivalent"
    for key in ("namespaceSelector", "objectSelector"):
        match[key] = match.get(key) or {}
    for rule in match.get("resourceRules") or ():
        if rule is not None and rule.get("scope") is None:
            rule["scope"] = "*"


class PolicyBindingStrategy(_ContentStrategy):
    def __init__(self, acts: bool) -> None:
        super().__init__()
        self.acts = acts

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if (match := spec.get("matchResources")) is not None:
            _default_match(match)

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = [] if spec.get("policyName") else [required("spec.policyName")]
        errors += [
            invalid("spec.policyName", spec["policyName"], words)
            for words in dns_subdomain(spec.get("policyName") or "x")
        ]
        actions = spec.get("validationActions") or ()
        if self.acts and not actions:
            errors.append(required("spec.validationActions", "at least one validation action is required"))
        if "Deny" in actions and "Warn" in actions:
            errors.append(
                invalid(
                    "spec.validationActions",
                    actions,
                    "must not contain both Deny and Warn (repeating the same "
                    "validation failure information in the API response and headers serves no purpose)",
                )
            )
        if (ref := spec.get("paramRef")) is not None and (ref.get("name") or "") and ref.get("selector") is not None:
            errors.append(forbidden_field("spec.paramRef.name", "name and selector are mutually exclusive"))
        return errors


def _count(key: str, path: str) -> Table:
    words = {"webhooks": "Webhooks indicates the number of webhooks registered in this configuration"}[key]
    return table(
        column("Webhooks", words, type="integer"), AGE, cells=lambda obj, now: [len(obj.get(path) or ()), age(obj, now)]
    )


def _param_kind(obj: JSON) -> str:
    kind = (obj.get("spec") or {}).get("paramKind")
    return f"{kind.get('apiVersion') or ''}/{kind.get('kind') or ''}" if kind else "<unset>"


def _param_ref(obj: JSON) -> str:
    ref = (obj.get("spec") or {}).get("paramRef")
    if not ref:
        return "<unset>"
    if not ref.get("name"):
        return "*"
    return f"{ref['namespace']}/{ref['name']}" if ref.get("namespace") else str(ref["name"])


def _policies(name: str, about: str, key: str) -> Table:
    return table(column(name, about, type="integer"),
                 column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"), AGE,
                 cells=lambda obj, now: [len((obj.get("spec") or {}).get(key) or ()), _param_kind(obj), age(obj, now)])


_WEBHOOKS = _count("webhooks", "webhooks")
_VALIDATING = _policies(
    "Validations", "Validations indicates the number of validation rules defined in this configuration", "validations"
)
_MUTATING = _policies(
    "Mutations", "Mutation indicates the number of mutations rules defined in this configuration", "mutations"
)
_BINDINGS = table(
    column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
    column("ParamRef", "ParamRef indicates the param resource which sets the configration param"), AGE,
    cells=lambda obj, now: [(obj.get("spec") or {}).get("policyName") or "", _param_ref(obj), age(obj, now)])


def rows() -> tuple[Resource, ...]:
    def row(kind: str, plural: str, strategy: _ContentStrategy, shown: Table) -> Resource:
        return ADMISSION.row(kind, plural, strategy, namespaced=False, table=shown, categories=("api-extensions",),
                             subresources=(status_of(kind),) if strategy.has_status else ())

    return (
        row("MutatingAdmissionPolicy", "mutatingadmissionpolicies", PolicyStrategy("mutations", False), _MUTATING),
        row(
            "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", PolicyBindingStrategy(False), _BINDINGS
        ),
        row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", WebhookStrategy(True), _WEBHOOKS),
        row(
            "ValidatingAdmissionPolicy", "validatingadmissionpolicies", PolicyStrategy("validations", True), _VALIDATING
        ),
        row(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            PolicyBindingStrategy(True),
            _BINDINGS,
        ),
        row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", WebhookStrategy(False), _WEBHOOKS),
    )
