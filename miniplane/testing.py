"""The pytest plugin: real clusters as fixtures.

    def test_pods(miniplane_cluster): ...             # one cluster for the whole session
    def test_alone(miniplane_cluster_per_test): ...   # one for this test
    def test_two(make_cluster): make_cluster(nodes=2, storage="etcd")
    def test_kubectl(kubeconfig): subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "get", "nodes"])
    async def test_http(miniplane_session): await miniplane_session.get("/api/v1/nodes")

My job: start clusters in folders of their own, on ports and loopback ranges of their own, and end them. Loaded by every
pytest that sees this distribution, so nothing but pytest is imported before a fixture is used.
"""

import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    import aiohttp

    from miniplane.launch import Cluster
    from miniplane.state import StateDir


@dataclass(frozen=True, slots=True)
class TestCluster:
    """A ready cluster of a test. Lives as long as the fixture that made it."""

    __test__ = False

    cluster: "Cluster"

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    @property
    def state(self) -> "StateDir":
        return self.cluster.state

    @property
    def environment(self) -> dict[str, str]:
        """For programs that find their cluster by `$KUBECONFIG`."""
        return dict(os.environ) | {"KUBECONFIG": str(self.kubeconfig)}

    def status(self) -> dict[str, Any]:
        from miniplane.control import ask

        return ask(self.state, {"do": "status"})

    def restart(self, process: str) -> None:
        from miniplane.control import ask

        ask(self.state, {"do": "restart", "process": process})

    def log(self, process: str) -> str:
        return self.state.log(process).read_text()

    def session(self) -> "aiohttp.ClientSession":
        """An aiohttp session that is the cluster's admin; close it."""
        import aiohttp

        from certs import kubeconfig
        from miniplane.apiclient import tls_context

        context = tls_context(kubeconfig.load(self.kubeconfig).credentials())
        return aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=context))

    def down(self) -> None:
        from miniplane.launch import down

        down(self.state)


class MakeCluster(Protocol):
    """Settings are the fields of `miniplane.state.Options`; storage, egress and topology may be words."""

    def __call__(self, **settings: Any) -> TestCluster: ...


@contextlib.contextmanager
def clusters(folder: Callable[[], Path]) -> Iterator[MakeCluster]:
    """A maker of clusters, which end when the context does, last one first."""
    with contextlib.ExitStack() as ending:

        def make(**settings: Any) -> TestCluster:
            from miniplane.launch import down, up
            from miniplane.state import StateDir

            state = StateDir.of(folder())
            ending.callback(down, state)
            # No test may fail because something else has port 443.
            return TestCluster(up(state, {"secure_port": 0} | _typed(settings), report=lambda line: None))

        yield make


def _typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    from miniplane.state import Egress, Storage, Topology

    typed = dict(settings)
    for name, kind in (("storage", Storage), ("egress", Egress), ("topology", Topology)):
        if isinstance(typed.get(name), str):
            typed[name] = kind(typed[name])
    return typed


@pytest.fixture(scope="session")
def miniplane_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """One cluster for all tests of this session: one node, SQLite."""
    with clusters(lambda: tmp_path_factory.mktemp("miniplane")) as make:
        yield make()


@pytest.fixture
def miniplane_cluster_per_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """A cluster nobody else has touched."""
    with clusters(lambda: tmp_path_factory.mktemp("miniplane")) as make:
        yield make()


@pytest.fixture
def make_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """Clusters as this test wants them: `make_cluster(nodes=3, storage="etcd", kubelet_ca=False)`."""
    with clusters(lambda: tmp_path_factory.mktemp("miniplane")) as make:
        yield make


@pytest.fixture
def kubeconfig(miniplane_cluster: TestCluster) -> Path:
    """The admin kubeconfig of the session's cluster."""
    return miniplane_cluster.kubeconfig


async def _session(miniplane_cluster: TestCluster) -> "AsyncIterator[aiohttp.ClientSession]":
    """An admin's aiohttp session with the API server as base URL."""
    async with miniplane_cluster.session() as session:
        yield session


if importlib.util.find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    miniplane_session = pytest_asyncio.fixture(_session, name="miniplane_session")
