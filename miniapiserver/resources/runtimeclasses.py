"""node.k8s.io/v1: RuntimeClasses."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.names import dns_label
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

NODE = Group("node.k8s.io", "v1", "io.k8s.api.node")


class RuntimeClassStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        handler = obj.get("handler") or ""
        return (
            [invalid("handler", handler, words) for words in dns_label(handler)] if handler else [required("handler")]
        )

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        same = (obj.get("handler") or "") == (old.get("handler") or "")
        return [] if same else [invalid("handler", obj.get("handler") or "", "field is immutable")]


_TABLE = table(column("Handler", "RuntimeClass.handler"), AGE,
               cells=lambda obj, now: [obj.get("handler") or "", age(obj, now)])


def rows() -> tuple[Resource, ...]:
    strategy = RuntimeClassStrategy(namespaced=False, create_on_update=True, unconditional_update=False)
    return (NODE.row("RuntimeClass", "runtimeclasses", strategy, namespaced=False, table=_TABLE),)
