"""Who listens where: what is there to be reached, and how it speaks."""


import ipaddress
import json
import os
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
import yaml

from miniplane.konnectivity import AGENT_PORT
from miniplane.testing import MakeCluster
from tests.e2e.node_identity import Caller

pytestmark = pytest.mark.e2e

SYSTEM = "/api/v1/namespaces/kube-system"


def listeners(pids: set[int]) -> set[tuple[str, int]]:
    """Address and port of every listening TCP socket of these processes."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                packed = b"".join(bytes.fromhex(host[at:at + 8])[::-1] for at in range(0, len(host), 8))
                found.add((socket.inet_ntop(family, packed), int(port, 16)))
    return found


def descendants(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(descendants(int(child)) for child in children))


def test_only_the_api_server_kubelets_and_agents_port_are_there_to_be_reached(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=2, egress="konnectivity")
    found = {item["name"]: listeners({item["pid"]}) for item in cluster.status()["processes"]}
    everybody = set().union(*found.values())
    assert all(ipaddress.ip_address(host).is_loopback for host, _ in everybody)
    own = "127.0.0.1"
    assert found["miniapiserver"] == {(own, int(cluster.url.rsplit(":", 1)[1]))}
    assert found["minicontroller"] == set()
    for name in ("node-1", "node-2"):
        ports = {port for _, port in found[name]}
        assert 10250 in ports
        # Health and metrics say nothing secret and answer to reads only; services are what the node is for.
        assert not ports & {10255, 8080, 4194}
    assert AGENT_PORT in {port for _, port in found["konnectivity-server"]}
    meant = {(host, port) for name in ("miniapiserver", "node-1", "node-2", "konnectivity-server")
             for host, port in found[name] if name == "miniapiserver" or port in (10250, AGENT_PORT)}
    for host, port in meant:
        assert speaks_tls(host, port), (host, port)
    assert not speaks_tls(*next(address for address in found["node-1"] if address[1] == 10248))


def speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), 5) as raw, context.wrap_socket(raw) as wrapped:
            return wrapped.version() in ("TLSv1.2", "TLSv1.3")
    except ssl.SSLError as error:
        # A listener that demands a certificate speaks TLS, too.
        return "CERTIFICATE_REQUIRED" in str(error)


def test_the_insecure_port_is_history_loopback_and_loud(make_cluster: MakeCluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rules = tmp_path / "authentication.yaml"
    rules.write_text(yaml.safe_dump({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
                                     "anonymous": {"enabled": True, "conditions": [{"path": "/livez"}]}}))
    flags = (f"--insecure-port={port}", f"--authentication-config={rules}")
    cluster = make_cluster(extra_args={"miniapiserver": flags})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/namespaces/kube-system/secrets") as answer:
        assert json.load(answer)["kind"] == "SecretList"  # no credential at all
    pid = next(item["pid"] for item in cluster.status()["processes"] if item["name"] == "miniapiserver")
    assert ("127.0.0.1", port) in listeners({pid})
    assert "system:masters, without TLS, without authentication" in cluster.log("miniapiserver")
    # The twin: on the secure port a stranger sees what the configuration names, and nothing else.
    stranger = Caller.anonymous(cluster)
    assert stranger.get("/livez")["code"] == 200
    assert [stranger.get(path)["code"] for path in ("/readyz", "/api", "/livez/ping", f"{SYSTEM}/secrets")] == [401] * 4
