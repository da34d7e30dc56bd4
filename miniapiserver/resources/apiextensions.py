"""apiextensions.k8s.io/v1: CustomResourceDefinitions."""

from miniapiserver.resources.columns import NAME_AND_CREATED
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

APIEXTENSIONS = Group("apiextensions.k8s.io", "v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions")


def rows() -> tuple[Resource, ...]:
    kind = "CustomResourceDefinition"
    return (APIEXTENSIONS.row(kind, "customresourcedefinitions", ObjectStrategy(namespaced=False, status=True, generation=True), namespaced=False,
                              table=NAME_AND_CREATED, short=("crd", "crds"), categories=("api-extensions",), subresources=(status_of(kind),)),)
