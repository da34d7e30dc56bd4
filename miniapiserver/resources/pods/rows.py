"""The rows of pods and pod templates."""

from typing import Any

from miniapiserver.errors import FieldError
from miniapiserver.resources.columns import column, container_cells, labels_text, table
from miniapiserver.resources.kinds import PROXY_VERBS, READ_WRITE, Group, metadata_fields, select, status_of, text
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.pods.strategy import PodStrategy
from miniapiserver.resources.pods.table import PODS
from miniapiserver.resources.pods.template import template_errors
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource, Subresource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

_FIELDS: dict[str, tuple[str, ...]] = {
    "spec.nodeName": ("spec", "nodeName"),
    "spec.host": ("spec", "nodeName"),
    "spec.restartPolicy": ("spec", "restartPolicy"),
    "spec.schedulerName": ("spec", "schedulerName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "spec.hostNetwork": ("spec", "hostNetwork"),
    "status.phase": ("status", "phase"),
    "status.nominatedNodeName": ("status", "nominatedNodeName"),
}
_SUBRESOURCES = (
    Subresource("attach", "PodAttachOptions", ("create", "get")),
    Subresource("binding", "Binding", ("create",)),
    Subresource("ephemeralcontainers", "Pod", READ_WRITE),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", ("create", "get")),
    Subresource("log", "Pod", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
    Subresource("proxy", "PodProxyOptions", PROXY_VERBS),
    Subresource("resize", "Pod", READ_WRITE),
    status_of("Pod"),
)
_paths = select(_FIELDS, {"spec.hostNetwork": "false"})


def pod_fields(pod: JSON) -> dict[str, str]:
    """Every field a fieldSelector may name; `spec.host` is an old name of spec.nodeName."""
    addresses = [text(item.get("ip")) for item in objects((pod.get("status") or {}).get("podIPs"))]
    first = addresses[0] if addresses else text((pod.get("status") or {}).get("podIP"))
    return _paths(pod) | {"status.podIP": first, "status.podIPs": ",".join(addresses)}


class PodTemplateStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        template = obj["template"] = obj.get("template") or {}
        default_template(template)

    def check(self, obj: JSON) -> list[FieldError]:
        return template_errors(obj.get("template") or {}, "template")

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        return obj.get("template") != old.get("template")


_TEMPLATES = table(
    column("Containers", "Names of each container in the template."),
    column("Images", "Images referenced by each container in the template."),
    column("Pod Labels", "The labels for the pod template."),
    cells=lambda obj, now: [*container_cells(obj.get("template")),
                            labels_text(((obj.get("template") or {}).get("metadata") or {}).get("labels"))])


def pod_row(group: Group) -> Resource:
    return group.row("Pod", "pods", PodStrategy(), table=PODS, short=("po",), categories=("all",),
                     subresources=_SUBRESOURCES, selectable=pod_fields,
                     fields=(*_FIELDS, "status.podIP", "status.podIPs"))


def pod_template_row(group: Group) -> Resource:
    return group.row("PodTemplate", "podtemplates", PodTemplateStrategy(generation=True, returns_deleted_object=True),
                     table=_TEMPLATES, selectable=metadata_fields)
