"""`python -m minicontroller`: flags, two clients, all controllers in one task group.

My job: compose. 0 after SIGTERM or SIGINT, 1 with one clear line when a file cannot be used. The API server may come
later than I do: every informer retries.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from certs.authority import Authority
from certs.errors import CertsError
from certs.jwt import TokenSigner
from minicontroller.bootstraptokens import BootstrapSigner, TokenCleaner
from minicontroller.certificates import Approver, Cleaner, Signer
from minicontroller.clusterroleaggregation import ClusterRoleAggregation
from minicontroller.controller import Controller
from minicontroller.cronjobs import CronJobs
from minicontroller.daemonsets import DaemonSets
from minicontroller.deployments import Deployments
from minicontroller.disruption import Disruption
from minicontroller.endpoints import Endpoints, EndpointSlices
from minicontroller.garbage import GarbageCollector
from minicontroller.informers import Informers
from minicontroller.jobs import Jobs
from minicontroller.namespaces import Namespaces
from minicontroller.nodelifecycle import NodeLifecycle
from minicontroller.podgc import PodGC
from minicontroller.replicasets import REPLICA_SETS, REPLICATION_CONTROLLERS, Replicas
from minicontroller.resourcequota import ResourceQuotas
from minicontroller.scheduler.scheduler import Scheduler
from minicontroller.serviceaccounts import RootCA, ServiceAccounts
from minicontroller.statefulsets import StatefulSets
from minicontroller.storageprotection import ClaimProtection, VolumeProtection
from minicontroller.tokensecrets import TokenSecrets
from wire.apiclient import Client

log = logging.getLogger("controller")


@dataclass(frozen=True, slots=True)
class Config:
    """`node_grace` in seconds. Without signing files no certificate is signed; without a CA file none is published."""

    kubeconfig: Path
    scheduler_kubeconfig: Path
    signing_cert: Path | None
    signing_key: Path | None
    root_ca: Path | None
    account_key: Path | None
    node_grace: float
    signing_seconds: float
    shortest_signing_seconds: float


def parse(argv: Sequence[str]) -> Config:
    parser = argparse.ArgumentParser("minicontroller", description="Controller manager and scheduler of miniplane.")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--scheduler-kubeconfig", type=Path, required=True)
    parser.add_argument("--cluster-signing-cert-file", type=Path)
    parser.add_argument("--cluster-signing-key-file", type=Path)
    parser.add_argument("--cluster-signing-duration", type=duration, default=365 * 24 * 3600.0)
    parser.add_argument(
        "--cluster-signing-minimum",
        type=duration,
        default=600.0,
        help="no certificate lives shorter; upstream's floor is ten minutes",
    )
    parser.add_argument("--root-ca-file", type=Path)
    parser.add_argument("--service-account-private-key-file", type=Path)
    parser.add_argument("--node-monitor-grace-period", type=duration, default=40.0)
    args = parser.parse_args(argv)
    return Config(
        args.kubeconfig,
        args.scheduler_kubeconfig,
        args.cluster_signing_cert_file,
        args.cluster_signing_key_file,
        args.root_ca_file,
        args.service_account_private_key_file,
        args.node_monitor_grace_period,
        args.cluster_signing_duration,
        args.cluster_signing_minimum,
    )


def duration(text: str) -> float:
    """`40s`, `5m`, `1h` or plain seconds."""
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    return float(text[:-1]) * factor if factor else float(text)


def manager(config: Config, informers: Informers) -> list[Controller]:
    """Everything the controller manager's identity does."""
    clock = time.time
    found: list[Controller] = [
        Namespaces(informers),
        ServiceAccounts(informers),
        Endpoints(informers),
        EndpointSlices(informers),
        Replicas(informers, REPLICA_SETS, clock),
        Replicas(informers, REPLICATION_CONTROLLERS, clock),
        Deployments(informers),
        DaemonSets(informers),
        Jobs(informers),
        CronJobs(informers),
        StatefulSets(informers),
        NodeLifecycle(informers, config.node_grace),
        PodGC(informers),
        Disruption(informers),
        Approver(informers),
        Cleaner(informers),
        GarbageCollector(informers),
        ResourceQuotas(informers),
        ClusterRoleAggregation(informers),
        TokenCleaner(informers, clock),
        ClaimProtection(informers),
        VolumeProtection(informers),
    ]
    if config.root_ca is not None:
        bundle = config.root_ca.read_text()
        found.append(RootCA(informers, clock, bundle))
        found.append(BootstrapSigner(informers, clock, informers.client.server, bundle))
        if config.account_key is not None:
            found.append(TokenSecrets(informers, clock, TokenSigner(config.account_key), bundle))
    if config.signing_cert is not None and config.signing_key is not None:
        authority = Authority.load(config.signing_cert, config.signing_key)
        found.append(Signer(informers, authority, clock, config.signing_seconds, config.shortest_signing_seconds))
    return found


async def serve(config: Config) -> None:
    """Run until cancelled."""
    async with (
        Client.from_kubeconfig(config.kubeconfig, "minicontroller") as manager_client,
        Client.from_kubeconfig(config.scheduler_kubeconfig, "minischeduler") as scheduler_client,
    ):
        managed, scheduled = Informers(manager_client), Informers(scheduler_client)
        controllers = [*manager(config, managed), Scheduler(scheduled)]
        async with asyncio.TaskGroup() as group:
            managed.run(group)
            scheduled.run(group)
            for controller in controllers:
                group.create_task(controller.run(), name=controller.name)
            log.info("running controllers=%d", len(controllers))


async def _until_signalled(config: Config) -> None:
    work = asyncio.create_task(serve(config), name="controllers")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(asctime)s %(name)s %(message)s")
    config = parse(sys.argv[1:])
    try:
        import uvloop

        uvloop.run(_until_signalled(config))
    except (CertsError, OSError, ValueError) as error:
        print(f"minicontroller: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
