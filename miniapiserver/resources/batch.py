"""batch/v1: its rows, in discovery's order."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.workloads.cronjobs import cron_job_row
from miniapiserver.resources.workloads.jobs import job_row

BATCH = Group("batch", "v1", "io.k8s.api.batch")


def rows() -> tuple[Resource, ...]:
    return (cron_job_row(BATCH), job_row(BATCH))
