"""What several tests of certificates need: a time, a cluster for the table, `init` without a process."""

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from certs.issuance import Access, Issuance, Outcome
from certs.layout import Layout
from certs.profiles import Cluster, NodeAddress

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CLUSTER = Cluster(ip_network("127.96.0.0/16"), ("127.0.0.1",), (NodeAddress("node-1", "127.0.10.1"),))
ACCESS = Access("miniplane", "https://127.0.0.1:6443")


def issue(state_dir: Path, cluster: Cluster = CLUSTER, now: datetime = NOW, access: Access = ACCESS) -> list[Outcome]:
    return Issuance(Layout(state_dir), cluster, access, now).run()


def snapshot(state_dir: Path) -> dict[Path, bytes]:
    """Every file but the lock, with its content."""
    return {path: path.read_bytes() for path in state_dir.rglob("*") if path.is_file() and path.name != ".certs.lock"}
