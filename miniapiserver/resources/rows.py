"""The type table: every resource this server has from the start.

My job: to put the groups' rows in the order in which discovery lists them (Kubernetes 1.36). I own no row.
"""

from miniapiserver.resources import (
    admissionregistration,
    apiextensions,
    apiregistration,
    apps,
    autoscaling,
    batch,
    certificates,
    coordination,
    core,
    discovery,
    dynamicresources,
    events,
    flowcontrol,
    networking,
    policy,
    rbac,
    reviews,
    runtimeclasses,
    scheduling,
    storage,
)
from miniapiserver.resources.certificates import CheckRequest
from miniapiserver.resources.endpoints import Networks
from miniapiserver.resources.resource import Resource


def all_rows(endpoint_networks: Networks = (), check_request: CheckRequest | None = None) -> tuple[Resource, ...]:
    """`endpoint_networks` may hold endpoints although they are loopback addresses, as pods of the local profile have.

    `check_request` says what is wrong with a PEM certificate request.
    """
    return (
        *core.rows(endpoint_networks),
        *apiregistration.rows(),
        *apps.rows(),
        *events.rows(),
        *reviews.authentication_rows(),
        *reviews.authorization_rows(),
        *autoscaling.rows(),
        *batch.rows(),
        *certificates.rows(check_request),
        *networking.rows(),
        *policy.rows(),
        *rbac.rows(),
        *storage.rows(),
        *admissionregistration.rows(),
        *apiextensions.rows(),
        *scheduling.rows(),
        *coordination.rows(),
        *runtimeclasses.rows(),
        *discovery.rows(endpoint_networks),
        *dynamicresources.rows(),
        *flowcontrol.rows(),
    )
