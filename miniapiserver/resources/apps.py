"""apps/v1: Deployments, ReplicaSets, StatefulSets, DaemonSets, ControllerRevisions."""

from miniapiserver.resources.kinds import SCALE, Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

APPS = Group("apps", "v1", "io.k8s.api.apps")


def rows() -> tuple[Resource, ...]:
    S = ObjectStrategy
    return (
        APPS.row("ControllerRevision", "controllerrevisions"),
        APPS.row("DaemonSet", "daemonsets", S(status=True, generation=True), short=("ds",), categories=("all",), subresources=(status_of("DaemonSet"),)),
        APPS.row("Deployment", "deployments", S(status=True, generation=True), short=("deploy",), categories=("all",), subresources=(SCALE, status_of("Deployment"))),
        APPS.row("ReplicaSet", "replicasets", S(status=True, generation=True), short=("rs",), categories=("all",), subresources=(SCALE, status_of("ReplicaSet"))),
        APPS.row("StatefulSet", "statefulsets", S(status=True, generation=True), short=("sts",), categories=("all",), subresources=(SCALE, status_of("StatefulSet"))),
    )
