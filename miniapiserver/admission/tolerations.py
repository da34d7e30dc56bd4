"""How long a pod stays on a node that went away, unless it says itself.

My job: the DefaultTolerationSeconds plugin (`plugin/pkg/admission/defaulttolerationseconds`).
"""

from miniapiserver.admission.interface import Attributes, Operation, Plugin

TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
SECONDS = 300


class DefaultTolerationSeconds(Plugin):
    async def admit(self, attributes: Attributes) -> None:
        row = attributes.row
        if row.plural != "pods" or row.group or attributes.subresource or attributes.operation is not Operation.CREATE:
            return
        assert attributes.obj is not None
        tolerations = attributes.obj["spec"].get("tolerations") or []
        missing = [key for key in TAINTS
                   if not any(item.get("key") in (key, None, "") and item.get("effect") in ("NoExecute", None, "")
                              for item in tolerations)]
        if missing:
            attributes.obj["spec"]["tolerations"] = tolerations + [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}
                for key in missing]
