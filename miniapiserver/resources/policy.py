"""policy/v1: PodDisruptionBudgets."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

POLICY = Group("policy", "v1", "io.k8s.api.policy")


def rows() -> tuple[Resource, ...]:
    kind = "PodDisruptionBudget"
    return (POLICY.row(kind, "poddisruptionbudgets", ObjectStrategy(status=True, generation=True), short=("pdb",), subresources=(status_of(kind),)),)
