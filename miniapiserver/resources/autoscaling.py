"""autoscaling: HorizontalPodAutoscalers, v2 stored, v1 converted."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

V2 = Group("autoscaling", "v2", "io.k8s.api.autoscaling")
V1 = Group("autoscaling", "v1", "io.k8s.api.autoscaling")


def rows() -> tuple[Resource, ...]:
    return tuple(group.row("HorizontalPodAutoscaler", "horizontalpodautoscalers", ObjectStrategy(status=True), short=("hpa",), categories=("all",),
                           subresources=(status_of("HorizontalPodAutoscaler"),)) for group in (V2, V1))
