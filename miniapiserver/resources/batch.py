"""batch/v1: Jobs and CronJobs."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

BATCH = Group("batch", "v1", "io.k8s.api.batch")


def rows() -> tuple[Resource, ...]:
    S = ObjectStrategy
    return (
        BATCH.row("CronJob", "cronjobs", S(status=True, generation=True), short=("cj",), categories=("all",), subresources=(status_of("CronJob"),)),
        BATCH.row("Job", "jobs", S(status=True, generation=True), categories=("all",), subresources=(status_of("Job"),)),
    )
