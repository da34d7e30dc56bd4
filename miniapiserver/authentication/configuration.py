"""`--authentication-config`: who may stay anonymous, and where.

My job: an AuthenticationConfiguration file → AnonymousRule, read strictly: a word I do not know is an error, because a
typing mistake here would open a door (apiserver `pkg/apis/apiserver`). The chain applies the rule.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from miniapiserver.config import ConfigError

API_VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
KIND = "AuthenticationConfiguration"


@dataclass(frozen=True, slots=True)
class AnonymousRule:
    """`paths` None: everywhere."""

    enabled: bool
    paths: frozenset[str] | None = None


def read(path: Path) -> AnonymousRule | None:
    """The file's rule, None when it says nothing about anonymous requests. Raises ConfigError."""
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from error
    top = _mapping(path, "", document, {"apiVersion", "kind", "jwt", "anonymous"})
    if top.get("apiVersion") not in API_VERSIONS or top.get("kind") != KIND:
        raise _wrong(path, f"{top.get('apiVersion')}, Kind={top.get('kind')} is not {API_VERSIONS[0]}, Kind={KIND}")
    if top.get("jwt"):
        raise _wrong(path, "jwt: authenticators of other issuers are not served here")
    if top.get("anonymous") is None:
        return None
    return _rule(path, _mapping(path, "anonymous", top["anonymous"], {"enabled", "conditions"}))


def _rule(path: Path, fields: dict[str, Any]) -> AnonymousRule:
    enabled, conditions = fields.get("enabled", False), fields.get("conditions") or []
    if not isinstance(enabled, bool):
        raise _wrong(path, "anonymous.enabled: not a boolean")
    if not isinstance(conditions, list):
        raise _wrong(path, "anonymous.conditions: not a list")
    if not conditions:
        return AnonymousRule(enabled)
    if not enabled:
        raise _wrong(path, "anonymous.conditions: Invalid value: enabled should be set to true when conditions are "
                           "defined")
    paths = [_mapping(path, f"anonymous.conditions[{index}]", item, {"path"}).get("path")
             for index, item in enumerate(conditions)]
    for index, item in enumerate(paths):
        if not isinstance(item, str) or not item.startswith("/"):
            raise _wrong(path, f"anonymous.conditions[{index}].path: Invalid value: {item!r} is no path")
    return AnonymousRule(True, frozenset(str(item) for item in paths))


def _mapping(path: Path, where: str, value: object, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, f"{where or 'the file'}: not a mapping")
    if unknown := sorted(str(key) for key in value if key not in known):
        raise _wrong(path, f'unknown field "{f"{where}." if where else ""}{unknown[0]}"')
    return value


def _wrong(path: Path, why: str) -> ConfigError:
    return ConfigError(f"--authentication-config {path}: {why}")
