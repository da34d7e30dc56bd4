"""Who is who: every certificate of a cluster, in one table.

My job: subject, names, usages, lifetime, signer and home of each certificate and kubeconfig. Pure data; `issuance` acts
on it. Names and subjects are kubeadm's (cmd/kubeadm/app/phases/certs/certlist.go), with the differences said beside
their rows. Rule: an identity that is not in this table does not exist.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Final

from certs.layout import FilePair, Layout

DAY: Final = timedelta(days=1)
LEAF_LIFETIME: Final = 365 * DAY


class Usage(enum.Enum):
    """What a certificate may be used for, in Kubernetes' words."""

    SERVER = "server auth"
    CLIENT = "client auth"


class Signer(enum.Enum):
    """The CAs of a cluster; the value is the CA's common name."""

    CLUSTER = "kubernetes"
    FRONT_PROXY = "front-proxy-ca"
    # Upstream trusts any certificate of the CA it is given, for agents and for the front alike (no name check). With
    # the cluster CA there, every kubelet could pose as an agent or dial through the front; hence two CAs of their own.
    KONNECTIVITY = "konnectivity-ca"
    KONNECTIVITY_FRONT = "konnectivity-front-ca"
    ETCD = "etcd-ca"


@dataclass(frozen=True, slots=True)
class Pair:
    """Home of a certificate: two files."""

    files: FilePair


@dataclass(frozen=True, slots=True)
class Combined:
    """Home of a certificate: one file with both halves, and a kubeconfig that names it (what a kubelet rotates)."""

    file: Path
    kubeconfig: Path


@dataclass(frozen=True, slots=True)
class InKubeconfig:
    """Home of a certificate: inside a kubeconfig."""

    kubeconfig: Path


Home = Pair | Combined | InKubeconfig


@dataclass(frozen=True, slots=True)
class Profile:
    """One row: an identity and where it lives."""

    name: str
    signer: Signer
    common_name: str
    usages: tuple[Usage, ...]
    home: Home
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    lifetime: timedelta = LEAF_LIFETIME


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node as the certificates know it."""

    name: str
    ip: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the table needs to know of a cluster: its names and addresses."""

    service_cidr: IPv4Network | IPv6Network
    sans: tuple[str, ...] = ()
    nodes: tuple[NodeAddress, ...] = ()
    # Where an etcd of our own listens; None: no etcd, no certificates for it.
    etcd: str | None = None
    # Where the Konnectivity server listens, if not where the API server does.
    konnectivity: str | None = None

    @property
    def kubernetes_service_ip(self) -> str:
        """The first address of the service range is the `kubernetes` Service's."""
        return str(self.service_cidr.network_address + 1)


def signers(layout: Layout, cluster: Cluster | None = None) -> dict[Signer, FilePair]:
    """The CAs of `cluster`; without one, every CA there can be."""
    files = {
        Signer.CLUSTER: layout.ca,
        Signer.FRONT_PROXY: layout.front_proxy_ca,
        Signer.KONNECTIVITY: layout.konnectivity_ca,
        Signer.KONNECTIVITY_FRONT: layout.konnectivity_front_ca,
        Signer.ETCD: layout.etcd_ca,
    }
    if cluster is not None and cluster.etcd is None:
        del files[Signer.ETCD]
    return files


def profiles(layout: Layout, cluster: Cluster) -> list[Profile]:
    rows = _control_plane(layout, cluster)
    if cluster.etcd is not None:
        rows += _etcd(layout, cluster.etcd)
    for node in cluster.nodes:
        rows += _node(layout, node)
    return rows


def _control_plane(layout: Layout, cluster: Cluster) -> list[Profile]:
    listening = split_sans(["localhost", "127.0.0.1", *cluster.sans])
    serving_dns = ("kubernetes", "kubernetes.default", "kubernetes.default.svc",
                   "kubernetes.default.svc.cluster.local", *listening.dns)  # fmt: skip
    serving_ips = (cluster.kubernetes_service_ip, *listening.ips)
    konnectivity_ips = unique((*listening.ips, *((cluster.konnectivity,) if cluster.konnectivity else ())))
    server, client = (Usage.SERVER,), (Usage.CLIENT,)
    kube, front, link, link_front = Signer.CLUSTER, Signer.FRONT_PROXY, Signer.KONNECTIVITY, Signer.KONNECTIVITY_FRONT
    return [
        Profile("apiserver", kube, "kube-apiserver", server, Pair(layout.apiserver),
                dns=unique(serving_dns), ips=unique(serving_ips)),
        # kubeadm adds O=kubeadm:cluster-admins; here RBAC binds the user to system:kubelet-api-admin and no more.
        Profile("apiserver-kubelet-client", kube, "kube-apiserver-kubelet-client", client,
                Pair(layout.apiserver_kubelet_client)),
        Profile("front-proxy-client", front, "front-proxy-client", client, Pair(layout.front_proxy_client)),
        Profile("konnectivity-server", link, "konnectivity-server", server, Pair(layout.konnectivity_server),
                dns=unique(("konnectivity-server", *listening.dns)), ips=konnectivity_ips),
        Profile("konnectivity-front", link_front, "konnectivity-front", server, Pair(layout.konnectivity_front),
                dns=unique(("konnectivity-front", *listening.dns)), ips=konnectivity_ips),
        Profile("apiserver-konnectivity-client", link_front, "kube-apiserver", client,
                Pair(layout.apiserver_konnectivity_client)),
        # kubeadm's admin.conf is O=kubeadm:cluster-admins, which needs a binding before the first login;
        # system:masters is what its super-admin.conf has.
        Profile("admin.conf", kube, "kubernetes-admin", client, InKubeconfig(layout.admin),
                organizations=("system:masters",)),
        Profile("controller-manager.conf", kube, "system:kube-controller-manager", client,
                InKubeconfig(layout.controller_manager)),
        Profile("scheduler.conf", kube, "system:kube-scheduler", client, InKubeconfig(layout.scheduler)),
        Profile("konnectivity-server.conf", kube, "system:konnectivity-server", client,
                InKubeconfig(layout.konnectivity_server_kubeconfig)),
    ]  # fmt: skip


def _etcd(layout: Layout, address: str) -> list[Profile]:
    """kubeadm's three, without its health check client."""
    both = (Usage.SERVER, Usage.CLIENT)
    names, ips = ("localhost",), unique(("127.0.0.1", address))
    return [
        Profile("etcd/server", Signer.ETCD, "etcd", both, Pair(layout.pair("etcd/server")), dns=names, ips=ips),
        Profile("etcd/peer", Signer.ETCD, "etcd", both, Pair(layout.pair("etcd/peer")), dns=names, ips=ips),
        Profile("apiserver-etcd-client", Signer.ETCD, "kube-apiserver-etcd-client", (Usage.CLIENT,),
                Pair(layout.pair("apiserver-etcd-client"))),
    ]  # fmt: skip


def _node(layout: Layout, node: NodeAddress) -> list[Profile]:
    files = layout.node(node.name)
    user, group = f"system:node:{node.name}", ("system:nodes",)
    return [
        Profile(f"{node.name}/kubelet-client", Signer.CLUSTER, user, (Usage.CLIENT,),
                Combined(files.client, files.kubeconfig), organizations=group),
        Profile(f"{node.name}/kubelet", Signer.CLUSTER, user, (Usage.SERVER,), Pair(files.serving),
                organizations=group, dns=(node.name,), ips=(node.ip,)),
        # kubeadm's kube-proxy is a pod with a service account; ours starts before there are pods.
        Profile(f"{node.name}/kube-proxy.conf", Signer.CLUSTER, "system:kube-proxy", (Usage.CLIENT,),
                InKubeconfig(files.kube_proxy)),
        Profile(f"{node.name}/konnectivity-agent", Signer.KONNECTIVITY, f"system:konnectivity-agent:{node.name}",
                (Usage.CLIENT,), Pair(files.konnectivity_agent)),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SANs:
    """Subject alternative names, by kind."""

    dns: tuple[str, ...]
    ips: tuple[str, ...]


def split_sans(names: Sequence[str]) -> SANs:
    """Addresses apart from names. An address is normalized, as the certificate will hold it."""
    dns, ips = [], []
    for name in names:
        try:
            ips.append(str(ip_address(name)))
        except ValueError:
            dns.append(name)
    return SANs(tuple(dns), tuple(ips))


def unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
