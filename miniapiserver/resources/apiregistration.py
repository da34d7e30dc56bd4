"""apiregistration.k8s.io/v1: APIServices."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

APIREGISTRATION = Group("apiregistration.k8s.io", "v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration")


def rows() -> tuple[Resource, ...]:
    return (APIREGISTRATION.row("APIService", "apiservices", ObjectStrategy(namespaced=False, status=True), namespaced=False,
                                categories=("api-extensions",), subresources=(status_of("APIService"),)),)
