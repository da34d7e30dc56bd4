"""Objects that fit a type of the schema and mean nothing: fields missing, null, empty or odd."""

import random
from typing import Any

from miniapiserver.schema.types import Kind, Type, TypeSchema, find

WORDS = (
    "",
    "a",
    "A_b",
    "x-1",
    "a/b",
    "..",
    "10.0.0.1",
    "::1",
    "1Gi",
    "-1",
    "100m",
    "25%",
    "True",
    "Always",
    "Never",
    "OnFailure",
    "TCP",
    "None",
    "Exists",
    "In",
    "ClusterIP",
    "LoadBalancer",
    "ExternalName",
    "Indexed",
    "v1",
    "metadata.name",
    "RollingUpdate",
    "NoExecute",
    "é",
    "a" * 300,
    "2026-01-01T00:00:00Z",
)
NUMBERS = (0, 1, -1, 80, 99999, 2**31 - 1, -(2**31))
TIMES = ("2026-01-01T00:00:00Z", None)
QUANTITIES = ("0", "1Gi", "100m", "-1", "1e3", "0.5", 3)


def any_value(type_: Type, rand: random.Random, depth: int) -> Any:
    match type_.kind:
        case Kind.STRING:
            return rand.choice(WORDS)
        case Kind.BYTES:
            return rand.choice(("", "Z2FyYmFnZQ==", "e30="))
        case Kind.BOOL:
            return rand.random() < 0.5
        case Kind.INT32 | Kind.INT64 | Kind.DOUBLE:
            return rand.choice(NUMBERS)
        case Kind.TIME | Kind.MICRO_TIME:
            return rand.choice(TIMES)
        case Kind.QUANTITY:
            return rand.choice(QUANTITIES)
        case Kind.INT_OR_STRING:
            return rand.choice((*NUMBERS, *WORDS))
        case Kind.LIST:
            return [any_item(type_.of, rand, depth - 1) for _ in range(rand.randrange(4))]
        case Kind.MAP:
            return {rand.choice(WORDS): any_item(type_.of, rand, depth - 1) for _ in range(rand.randrange(3))}
        case Kind.STRUCT:
            return any_struct(type_.struct, rand, depth)
        case _:
            return rand.choice(({}, {"a": 1}, None))


def any_item(type_: Type, rand: random.Random, depth: int) -> Any:
    return None if rand.random() < 0.1 else any_value(type_, rand, depth)


def any_struct(schema: TypeSchema, rand: random.Random, depth: int) -> dict[str, Any]:
    if depth <= 0:
        return {}
    likely = rand.choice((0.15, 0.4, 0.8))
    return {
        name: any_item(field.type, rand, depth - 1) for name, field in schema.fields.items() if rand.random() < likely
    }


def any_object(type_name: str, rand: random.Random) -> dict[str, Any]:
    """An object of this type with a name and a namespace."""
    obj = any_struct(find(type_name), rand, 9)
    obj["metadata"] = {key: value for key, value in (obj.get("metadata") or {}).items() if value is not None}
    obj["metadata"] |= {"name": rand.choice(WORDS) or "a", "namespace": rand.choice(("default", "", "x"))}
    return obj


def changed(obj: dict[str, Any], type_name: str, rand: random.Random) -> dict[str, Any]:
    """A copy that differs in a few fields of its content."""
    other = any_object(type_name, rand)
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in obj.items()}
    for key in ("spec", "status", "data", "rules"):
        if isinstance(copy.get(key), dict) and isinstance(other.get(key), dict):
            for name in list(other[key])[:3]:
                if name not in ("containers", "initContainers") or rand.random() < 0.3:
                    copy[key][name] = other[key][name]
    return copy
