"""Nothing is created in a namespace that is missing or going, and the system's namespaces stay.

My job: the NamespaceLifecycle plugin (`plugin/namespace/lifecycle`).
"""

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden, NotFound
from miniapiserver.registry.objects import Objects

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
#: Reviews of access are answered for namespaces that do not exist.
EXEMPT = frozenset({"localsubjectaccessreviews"})


class NamespaceLifecycle(Plugin):
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def validate(self, attributes: Attributes) -> None:
        row = attributes.row
        if attributes.operation is Operation.DELETE and row.plural == "namespaces" and attributes.name in IMMORTAL:
            raise Forbidden.resource("namespaces", "", attributes.name, "this namespace may not be deleted")

    async def admit(self, attributes: Attributes) -> None:
        row, namespace = attributes.row, attributes.namespace
        if not row.namespaced or attributes.operation is not Operation.CREATE or row.plural in EXEMPT:
            return
        found = self._objects.get("namespaces", "", namespace)
        if found is None:
            raise NotFound.resource("namespaces", "", namespace)
        if (found.get("status") or {}).get("phase") == "Terminating":
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated",
                     "field": "metadata.namespace"}
            raise Forbidden.resource(row.plural, row.group, attributes.name,
                                     f"unable to create new content in namespace {namespace} because it is being "
                                     "terminated", causes=[cause])
