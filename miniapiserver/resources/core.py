"""core/v1, the group without a name.

My job: its rows, in discovery's order. Kinds with rules of their own live in modules of their own.
"""

from typing import Any

from miniapiserver.errors import FieldError
from miniapiserver.resources.columns import column, table
from miniapiserver.resources.configdata import config_map_row, secret_row
from miniapiserver.resources.endpoints import Networks, endpoints_row
from miniapiserver.resources.events import core_event_row
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.namespaces import namespace_row
from miniapiserver.resources.nodes import node_row
from miniapiserver.resources.persistentvolumes import persistent_volume_claim_row, persistent_volume_row
from miniapiserver.resources.pods.binding import binding_errors
from miniapiserver.resources.pods.rows import pod_row, pod_template_row
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.quotas import limit_range_row, resource_quota_row
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.serviceaccounts import service_account_row
from miniapiserver.resources.services import service_row
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.replicas import replication_controller_row

JSON = dict[str, Any]

CORE = Group("", "v1", "io.k8s.api.core")


class BindingStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        return binding_errors(obj)


def _component_cells(obj: JSON, now: float) -> list[Any]:
    healthy = next((item for item in objects(obj.get("conditions")) if item.get("type") == "Healthy"), None)
    if healthy is None:
        return ["Unknown", "", ""]
    word = "Healthy" if healthy.get("status") == "True" else "Unhealthy"
    return [word, healthy.get("message") or "", healthy.get("error") or ""]


_COMPONENTS = table(
    column("Status", "Status of the component conditions"), column("Message", "Message of the component conditions"),
    column("Error", "Error of the component conditions"), cells=_component_cells)


def rows(exempt: Networks = ()) -> tuple[Resource, ...]:
    return (
        CORE.row("Binding", "bindings", BindingStrategy(), verbs=("create",), stored=False),
        CORE.row("ComponentStatus", "componentstatuses", ObjectStrategy(namespaced=False), namespaced=False,
                 table=_COMPONENTS, verbs=("get", "list"), stored=False, short=("cs",)),
        config_map_row(CORE),
        endpoints_row(CORE, exempt),
        core_event_row(CORE),
        limit_range_row(CORE),
        namespace_row(CORE),
        node_row(CORE),
        persistent_volume_claim_row(CORE),
        persistent_volume_row(CORE),
        pod_row(CORE),
        pod_template_row(CORE),
        replication_controller_row(CORE),
        resource_quota_row(CORE),
        secret_row(CORE),
        service_account_row(CORE),
        service_row(CORE),
    )
