"""ConfigMaps and Secrets: keys and values.

My job: what keys may be, how much fits, what immutability means, and the types of Secrets.
"""

from base64 import b64decode, b64encode
from typing import Any

import orjson

from miniapiserver.errors import FieldError, forbidden_field, invalid, required, too_long
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, select
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import byte_length, config_key
from miniapiserver.resources.resource import Resource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.schema.gojson import syntax_error

JSON = dict[str, Any]

MAX_SIZE = 1 << 20
_IMMUTABLE_WORDS = "field is immutable when `immutable` is set"


def _base64_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def _frozen_errors(obj: JSON, old: JSON, keys: tuple[str, ...]) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    errors = [] if obj.get("immutable") else [forbidden_field("immutable", _IMMUTABLE_WORDS)]
    return errors + [
        forbidden_field(key, _IMMUTABLE_WORDS) for key in keys if (obj.get(key) or {}) != (old.get(key) or {})
    ]


class ConfigMapStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        errors: list[FieldError] = []
        total = 0
        for key, value in data.items():
            errors += [invalid(f"data[{key}]", key, words) for words in config_key(key)]
            if key in binary:
                errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
            total += byte_length(value or "")
        for key, value in binary.items():
            errors += [invalid(f"binaryData[{key}]", key, words) for words in config_key(key)]
            total += _base64_size(value or "")
        if total > MAX_SIZE:
            errors.append(FieldError("[]", "FieldValueTooLong", f"Too long: may not be more than {MAX_SIZE} bytes"))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return _frozen_errors(obj, old, ("data", "binaryData")) + self.check(obj)


# Upstream forgets to format this path, and clients have seen it so ever since (core validation, ValidateSecret).
_UNFORMATTED = "data[%s]"


class SecretStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        if not obj.get("type"):
            obj["type"] = "Opaque"
        if texts := obj.pop("stringData", None):
            data = obj["data"] = obj.get("data") or {}
            for key, value in texts.items():
                data[key] = b64encode((value or "").encode(errors="surrogatepass")).decode()

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        if not obj.get("type"):
            obj["type"] = old.get("type")

    def check(self, obj: JSON) -> list[FieldError]:
        data = obj.get("data") or {}
        errors: list[FieldError] = []
        total = 0
        for key, value in data.items():
            errors += [invalid(f"data[{key}]", key, words) for words in config_key(key)]
            total += _base64_size(value or "")
        if total > MAX_SIZE:
            errors.append(too_long("data", MAX_SIZE))
        if rule := _SECRET_RULES.get(obj.get("type") or ""):
            errors += rule(obj, data)
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        if (obj.get("type") or "") != (old.get("type") or ""):
            errors.append(invalid("type", obj.get("type") or "", "field is immutable"))
        return errors + _frozen_errors(obj, old, ("data",)) + self.check(obj)


def _service_account_token(obj: JSON, data: JSON) -> list[FieldError]:
    key = "kubernetes.io/service-account.name"
    named = (metadata_of(obj).get("annotations") or {}).get(key)
    return [] if named else [required(f"metadata.annotations[{key}]")]


def _docker(key: str) -> Any:
    def rule(obj: JSON, data: JSON) -> list[FieldError]:
        path = f"data[{key}]"
        if key not in data:
            return [required(path)]
        text = b64decode(data[key] or "")
        try:
            held = orjson.loads(text)
        except ValueError:
            return [invalid(path, "<secret contents redacted>", syntax_error(text))]
        if held is None or isinstance(held, dict):
            return []
        return [invalid(path, "<secret contents redacted>", f"json: cannot unmarshal {_go_word(held)} into Go value "
                                                            "of type map[string]interface {}")]

    return rule


def _go_word(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "number"


def _needs(*keys: str) -> Any:
    return lambda obj, data: [required(f"data[{key}]") for key in keys if key not in data]


def _ssh_auth(obj: JSON, data: JSON) -> list[FieldError]:
    return [] if data.get("ssh-privatekey") else [required(f"{_UNFORMATTED}[ssh-privatekey]")]


def _basic_auth(obj: JSON, data: JSON) -> list[FieldError]:
    if "username" in data or "password" in data:
        return []
    return [required(f"{_UNFORMATTED}[username]"), required(f"{_UNFORMATTED}[password]")]


_SECRET_RULES: dict[str, Any] = {
    "kubernetes.io/service-account-token": _service_account_token,
    "kubernetes.io/dockercfg": _docker(".dockercfg"),
    "kubernetes.io/dockerconfigjson": _docker(".dockerconfigjson"),
    "kubernetes.io/basic-auth": _basic_auth,
    "kubernetes.io/ssh-auth": _ssh_auth,
    "kubernetes.io/tls": _needs("tls.crt", "tls.key"),
}

_CONFIG_MAPS = table(
    column("Data", "ConfigMap.data"), AGE,
    cells=lambda obj, now: [len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)])
_SECRETS = table(
    column("Type", "Secret.type"), column("Data", "Secret.data"), AGE,
    cells=lambda obj, now: [obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)])


def config_map_row(group: Group) -> Resource:
    return group.row("ConfigMap", "configmaps", ConfigMapStrategy(), table=_CONFIG_MAPS, short=("cm",))


def secret_row(group: Group) -> Resource:
    return group.row("Secret", "secrets", SecretStrategy(), table=_SECRETS, selectable=select({"type": ("type",)}),
                     fields=("type",))
