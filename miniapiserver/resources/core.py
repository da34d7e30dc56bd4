"""core/v1, the group without a name.

My job: its rows, in discovery's order. Kinds with rules of their own live in modules of their own.
"""


from miniapiserver.resources.kinds import PROXY_VERBS, READ_WRITE, SCALE, Group, status_of
from miniapiserver.resources.pods.rows import pod_row, pod_template_row
from miniapiserver.resources.resource import Resource, Subresource
from miniapiserver.resources.strategy import ObjectStrategy

CORE = Group("", "v1", "io.k8s.api.core")


def rows() -> tuple[Resource, ...]:
    S = ObjectStrategy
    return (
        CORE.row("Binding", "bindings", verbs=("create",), stored=False),
        CORE.row("ComponentStatus", "componentstatuses", S(namespaced=False), namespaced=False, verbs=("get", "list"), stored=False, short=("cs",)),
        CORE.row("ConfigMap", "configmaps", S(), short=("cm",)),
        CORE.row("Endpoints", "endpoints", S(create_on_update=True), short=("ep",)),
        CORE.row("Event", "events", S(create_on_update=True), short=("ev",), ttl=3600.0),
        CORE.row("LimitRange", "limitranges", S(create_on_update=True), short=("limits",)),
        CORE.row("Namespace", "namespaces", S(namespaced=False, status=True, returns_deleted_object=True), namespaced=False, short=("ns",),
                 verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
                 subresources=(Subresource("finalize", "Namespace", ("update",)), status_of("Namespace"))),
        CORE.row("Node", "nodes", S(namespaced=False), namespaced=False, short=("no",),
                 subresources=(Subresource("proxy", "NodeProxyOptions", PROXY_VERBS), status_of("Node"))),
        CORE.row("PersistentVolumeClaim", "persistentvolumeclaims", S(status=True, returns_deleted_object=True), short=("pvc",), subresources=(status_of("PersistentVolumeClaim"),)),
        CORE.row("PersistentVolume", "persistentvolumes", S(namespaced=False, status=True, returns_deleted_object=True), namespaced=False, short=("pv",), subresources=(status_of("PersistentVolume"),)),
        pod_row(CORE),
        pod_template_row(CORE),
        CORE.row("ReplicationController", "replicationcontrollers", S(status=True, generation=True), short=("rc",), categories=("all",), subresources=(SCALE, status_of("ReplicationController"))),
        CORE.row("ResourceQuota", "resourcequotas", S(status=True, returns_deleted_object=True), short=("quota",), subresources=(status_of("ResourceQuota"),)),
        CORE.row("Secret", "secrets", S()),
        CORE.row("ServiceAccount", "serviceaccounts", S(returns_deleted_object=True), short=("sa",), subresources=(Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),)),
        CORE.row("Service", "services", S(status=True, create_on_update=True, returns_deleted_object=True), short=("svc",), categories=("all",), subresources=(
            Subresource("proxy", "ServiceProxyOptions", PROXY_VERBS), status_of("Service"))),
    )
