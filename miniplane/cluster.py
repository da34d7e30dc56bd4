"""The process table: which programs a cluster is made of, and with which flags.

My job: from `Options` and `Place` to a list of rows, as data. Pure, but for `write_inputs`, which puts down the small
files the rows name. I own no process; `supervisor` starts what I list. Rule: what a program is told, it is told here.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from miniplane import konnectivity, ssh, topology
from miniplane.addresses import Ranges, own_addresses, reachable_address, url
from miniplane.errors import OptionsError
from miniplane.program import Node, Pki, Program, Readiness, node_dir, nodes, python
from miniplane.state import Options, Record, StateDir, Storage, Topology

KUBELET_PORT: Final = 10250
ETCD_PORT: Final = 2379
ETCD_PEER_PORT: Final = 2380


def programs(record: Record, state: StateDir) -> list[Program]:
    """The table, in the order of starting; stopping goes the other way. Raises OptionsError."""
    options, ranges = record.options, record.ranges
    rows: list[Program] = []
    if options.storage is Storage.ETCD:
        rows.append(_etcd(state, ranges))
    rows += konnectivity.servers(options.egress, state, ranges)
    rows.append(_apiserver(record, state))
    rows.append(_controller(state))
    rows += [_kubelet(state, node) for node in nodes(options, ranges)]
    rows += konnectivity.agents(options.egress, state, ranges, nodes(options, ranges))
    rows += ssh.servers(record, state)
    rows = list(_with_extra_args(rows, options))
    return topology.placed(rows, record) if options.topology is Topology.NETNS else rows


def _with_extra_args(rows: list[Program], options: Options) -> Iterator[Program]:
    """Extra flags go to a process by name, or to every kubelet by `minikubelet`."""
    names = {row.name for row in rows} | {"minikubelet"}
    unknown = sorted(set(options.extra_args) - names)
    if unknown:
        raise OptionsError(
            f"extra arguments for {unknown[0]!r}: this cluster's processes are {', '.join(sorted(names))}"
        )
    for row in rows:
        extra = options.extra_args.get(row.name, ())
        if row.readiness is Readiness.NODE:
            extra = (*options.extra_args.get("minikubelet", ()), *extra)
        yield replace(row, argv=(*row.argv, *extra))


def _etcd(state: StateDir, ranges: Ranges) -> Program:
    pki, address = Pki(state.path), ranges.control_plane
    client, peer = f"https://{address}:{ETCD_PORT}", f"https://{address}:{ETCD_PEER_PORT}"
    return Program(
        "etcd",
        (
            "etcd",
            "--name=miniplane",
            f"--data-dir={state.etcd_data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=miniplane={peer}",
            f"--trusted-ca-file={pki('etcd/ca.crt')}",
            f"--cert-file={pki('etcd/server.crt')}",
            f"--key-file={pki('etcd/server.key')}",
            "--client-cert-auth",
            f"--peer-trusted-ca-file={pki('etcd/ca.crt')}",
            f"--peer-cert-file={pki('etcd/peer.crt')}",
            f"--peer-key-file={pki('etcd/peer.key')}",
            "--peer-client-cert-auth",
        ),
        str(state.log("etcd")),
        layer=0,
    )


def _apiserver(record: Record, state: StateDir) -> Program:
    options, place, ranges, pki = record.options, record.place, record.ranges, Pki(state.path)
    flags = [
        f"--bind-address={record.bind_address}",
        f"--advertise-address={reachable_address(record.bind_address)}",
        f"--secure-port={place.port}",
        f"--tls-cert-file={pki('apiserver.crt')}",
        f"--tls-private-key-file={pki('apiserver.key')}",
        f"--client-ca-file={pki('ca.crt')}",
        f"--requestheader-client-ca-file={pki('front-proxy-ca.crt')}",
        "--requestheader-allowed-names=front-proxy-client",
        f"--kubelet-client-certificate={pki('apiserver-kubelet-client.crt')}",
        f"--kubelet-client-key={pki('apiserver-kubelet-client.key')}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth=true",
        f"--bootstrap-token-file={state.path / 'bootstrap-token'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki('sa.pub')}",
        f"--service-account-signing-key-file={pki('sa.key')}",
        f"--service-cluster-ip-range={ranges.services}",
        f"--proxy-allow-cidrs={','.join(ranges.all)}",
        f"--connections-socket={state.connections_socket('miniapiserver')}",
        f"--audit-log-path={state.audit_log}",
        *_storage_flags(options, state, ranges),
        *konnectivity.apiserver_flags(options.egress, state),
        *ssh.apiserver_flags(record, state),
    ]
    if options.kubelet_ca:
        flags.append(f"--kubelet-certificate-authority={pki('ca.crt')}")
    argv = (*python("miniapiserver"), *flags)
    return Program("miniapiserver", argv, str(state.log("miniapiserver")), 2, Readiness.READYZ)


def _storage_flags(options: Options, state: StateDir, ranges: Ranges) -> list[str]:
    pki = Pki(state.path)
    match options.storage:
        case Storage.SQLITE:
            return [f"--storage-path={state.database}"]
        case Storage.ETCD:
            return [
                f"--etcd-servers=https://{ranges.control_plane}:{ETCD_PORT}",
                f"--etcd-cafile={pki('etcd/ca.crt')}",
                f"--etcd-certfile={pki('apiserver-etcd-client.crt')}",
                f"--etcd-keyfile={pki('apiserver-etcd-client.key')}",
            ]


def _controller(state: StateDir) -> Program:
    pki = Pki(state.path)
    argv = (
        *python("minicontroller"),
        f"--kubeconfig={state.path / 'controller-manager.conf'}",
        f"--scheduler-kubeconfig={state.path / 'scheduler.conf'}",
        f"--cluster-signing-cert-file={pki('ca.crt')}",
        f"--cluster-signing-key-file={pki('ca.key')}",
        f"--root-ca-file={pki('ca.crt')}",
        f"--service-account-private-key-file={pki('sa.key')}",
    )
    return Program("minicontroller", argv, str(state.log("minicontroller")), layer=3)


def _kubelet(state: StateDir, node: Node) -> Program:
    home = node_dir(state, node)
    argv = (
        *python("minikubelet"),
        f"--kubeconfig={home / 'kubelet.conf'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.ip}",
        f"--address={node.ip}",
        f"--port={KUBELET_PORT}",
        f"--root-dir={home}",
        f"--cert-dir={home / 'pki'}",
        f"--client-ca-file={Pki(state.path)('ca.crt')}",
        f"--tls-cert-file={home / 'pki' / 'kubelet.crt'}",
        f"--tls-private-key-file={home / 'pki' / 'kubelet.key'}",
        f"--config={home / 'config.yaml'}",
        f"--pod-cidr={node.pod_cidr}",
        f"--pod-manifest-path={home / 'manifests'}",
        f"--image-dir={state.images}",
        f"--connections-socket={state.connections_socket(node.name)}",
    )
    # A kubelet ends its pods' processes when it ends; they get their own grace first.
    return Program(node.name, argv, str(state.log(node.name)), 3, Readiness.NODE, grace=10.0)


def kubelet_configuration(node: Node) -> dict[str, Any]:
    """What a flag cannot say. JSON, which is YAML."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Every kubelet has its own address here, so the health port can be the usual one on each.
        "healthzBindAddress": node.ip,
        "healthzPort": 10248,
        "rotateCertificates": True,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
    }


def write_inputs(record: Record, state: StateDir) -> None:
    """The folders and files the table names. A kubelet configuration that is there is someone's, and stays."""
    try:
        for folder in (state.logs, state.images, state.database.parent, state.path / "connections"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for node in nodes(record.options, record.ranges):
            home = node_dir(state, node)
            (home / "manifests").mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_kubelet_configuration(home / "config.yaml", node)
        konnectivity.write_inputs(record.options.egress, state, record.ranges)
        ssh.write_inputs(record, state)
        if record.options.storage is Storage.ETCD:
            state.etcd_data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"write {error.filename}: {error.strerror}") from error


def _write_kubelet_configuration(path: Path, node: Node) -> None:
    """The slot may have changed since: a file we wrote is brought up to date, one that was edited is not."""
    wanted = kubelet_configuration(node)
    try:
        present = json.loads(path.read_text())
    except FileNotFoundError:
        present = None
    except ValueError:
        return  # YAML: edited by hand
    if present is None or present | {"healthzBindAddress": node.ip} == wanted:
        path.write_text(json.dumps(wanted, indent=2) + "\n")


def cluster_url(record: Record) -> str:
    return url(reachable_address(record.bind_address), record.place.port)


def certificate_names(record: Record) -> list[str]:
    """Names the API server's certificate holds beyond the fixed ones."""
    address = record.bind_address
    return list(dict.fromkeys([reachable_address(address), *own_addresses(address), *record.options.sans]))
