"""Konnectivity in the process table: one server beside the API server, one agent on each node.

My job: their rows, the API server's egress selector file, and what each egress means. Addresses: the server's agent
port on the control plane's helper address, each agent's own ports on its node's. The front has a CA of its own, and so
has the agents' link (`certs.profiles`).
"""

from pathlib import Path
from typing import Any, Final

from miniplane.addresses import Ranges
from miniplane.errors import OptionsError
from miniplane.program import Node, Pki, Program, node_dir, python
from miniplane.state import Egress, StateDir, write_json

AGENT_PORT: Final = 8091
FRONT_PORT: Final = 8090
# sun_path of a UNIX socket address holds 108 bytes with the closing zero (unix(7)).
_LONGEST_SOCKET_PATH: Final = 107


def servers(egress: Egress, state: StateDir, ranges: Ranges) -> list[Program]:
    if not egress.is_konnectivity:
        return []
    pki, address = Pki(state.path), ranges.control_plane
    argv = (
        *python("konnectivity.server"),
        f"--mode={'grpc' if egress is Egress.KONNECTIVITY_GRPC else 'http-connect'}",
        *_front(egress, state, address),
        f"--agent-bind-address={address}",
        f"--agent-port={AGENT_PORT}",
        f"--cluster-cert={pki('konnectivity-server.crt')}",
        f"--cluster-key={pki('konnectivity-server.key')}",
        f"--cluster-ca-cert={pki('konnectivity-ca.crt')}",
        f"--admin-bind-address={address}",
        f"--health-bind-address={address}",
        # The agent of the node itself, if it is known which that is; else any.
        "--proxy-strategies=destHost,default",
    )
    return [Program("konnectivity-server", argv, str(state.log("konnectivity-server")), layer=1)]


def _front(egress: Egress, state: StateDir, address: str) -> list[str]:
    if egress is not Egress.KONNECTIVITY_TCP:
        return [f"--uds-name={_socket(state)}", "--server-port=0"]
    pki = Pki(state.path)
    return [
        f"--server-bind-address={address}",
        f"--server-port={FRONT_PORT}",
        f"--server-cert={pki('konnectivity-front.crt')}",
        f"--server-key={pki('konnectivity-front.key')}",
        f"--server-ca-cert={pki('konnectivity-front-ca.crt')}",
    ]


def agents(egress: Egress, state: StateDir, ranges: Ranges, nodes: list[Node]) -> list[Program]:
    return [] if not egress.is_konnectivity else [_agent(state, ranges, node) for node in nodes]


def _agent(state: StateDir, ranges: Ranges, node: Node) -> Program:
    name, keys = f"konnectivity-agent-{node.name}", node_dir(state, node) / "pki"
    argv = (
        *python("konnectivity.agent"),
        f"--agent-id={node.name}",
        f"--agent-identifiers=ipv4={node.ip}&host={node.name}&cidr={node.pod_cidr}",
        f"--ca-cert={Pki(state.path)('konnectivity-ca.crt')}",
        f"--agent-cert={keys / 'konnectivity-agent.crt'}",
        f"--agent-key={keys / 'konnectivity-agent.key'}",
        f"--proxy-server-host={ranges.control_plane}",
        f"--proxy-server-port={AGENT_PORT}",
        f"--health-server-host={node.ip}",
        f"--admin-bind-address={node.ip}",
        f"--connections-socket={state.connections_socket(name)}",
    )
    # Below the API server: an agent drains, that is, waits for the connections that the API server keeps open.
    return Program(name, argv, str(state.log(name)), layer=1)


def apiserver_flags(egress: Egress, state: StateDir) -> list[str]:
    return [] if not egress.is_konnectivity else [f"--egress-selector-config-file={state.egress_configuration}"]


def write_inputs(egress: Egress, state: StateDir, ranges: Ranges) -> None:
    """Raises OptionsError. JSON, which is YAML."""
    if not egress.is_konnectivity:
        return
    _socket(state).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(state.egress_configuration, egress_configuration(egress, state, ranges))


def egress_configuration(egress: Egress, state: StateDir, ranges: Ranges) -> dict[str, Any]:
    protocol = "GRPC" if egress is Egress.KONNECTIVITY_GRPC else "HTTPConnect"
    cluster = {"proxyProtocol": protocol, "transport": _transport(egress, state, ranges)}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [
            {"name": "cluster", "connection": cluster},
            {"name": "controlplane", "connection": {"proxyProtocol": "Direct"}},
            {"name": "etcd", "connection": {"proxyProtocol": "Direct"}},
        ],
    }


def _transport(egress: Egress, state: StateDir, ranges: Ranges) -> dict[str, Any]:
    if egress is not Egress.KONNECTIVITY_TCP:
        return {"uds": {"udsName": str(_socket(state))}}
    pki = Pki(state.path)
    tls = {
        "caBundle": pki("konnectivity-front-ca.crt"),
        "clientCert": pki("apiserver-konnectivity-client.crt"),
        "clientKey": pki("apiserver-konnectivity-client.key"),
    }
    return {"tcp": {"url": f"https://{ranges.control_plane}:{FRONT_PORT}", "tlsConfig": tls}}


def _socket(state: StateDir) -> Path:
    path = state.path / "konnectivity" / "front.sock"
    if len(str(path)) > _LONGEST_SOCKET_PATH:
        raise OptionsError(f"{path}: longer than a UNIX socket's name may be; use --egress konnectivity-tcp")
    return path
