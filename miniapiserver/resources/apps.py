"""apps/v1: its rows, in discovery's order."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.workloads.daemonsets import controller_revision_row, daemon_set_row
from miniapiserver.resources.workloads.deployments import deployment_row
from miniapiserver.resources.workloads.replicas import replica_set_row
from miniapiserver.resources.workloads.statefulsets import stateful_set_row

APPS = Group("apps", "v1", "io.k8s.api.apps")


def rows() -> tuple[Resource, ...]:
    return (controller_revision_row(APPS), daemon_set_row(APPS), deployment_row(APPS), replica_set_row(APPS),
            stateful_set_row(APPS))
