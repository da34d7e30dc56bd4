"""A new node is not for pods until a controller has seen it ready.

My job: the TaintNodesByCondition plugin (`plugin/pkg/admission/nodetaint`).
"""

from miniapiserver.admission.interface import Attributes, Operation, Plugin

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class TaintNodesByCondition(Plugin):
    async def admit(self, attributes: Attributes) -> None:
        if attributes.row.plural != "nodes" or attributes.subresource or attributes.operation is not Operation.CREATE:
            return
        assert attributes.obj is not None
        spec = attributes.obj.setdefault("spec", {})
        taints = spec.setdefault("taints", [])
        if not any((item.get("key"), item.get("effect")) == tuple(NOT_READY.values()) for item in taints):
            taints.append(dict(NOT_READY))
