"""One cluster for the whole table, one namespace per kubectl version."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniplane.testing import TestCluster, clusters
from tests.e2e.kubectl import Kubectl, installed

KUBECTLS = installed()


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("e2e")) as make:
        yield make(nodes=2)


def _id(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


@pytest.fixture(scope="module", params=list(KUBECTLS) or [None], ids=lambda v: _id(v) if v else "none")
def kubectl(
    request: pytest.FixtureRequest, two_nodes: TestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    version = request.param
    if version is None:
        if os.environ.get("CI"):
            pytest.fail("no kubectl on this machine: nothing here would be tested")
        pytest.skip("no kubectl on this machine")
    namespace = f"{Path(str(request.fspath)).stem.replace('_', '-')}-{version[0]}-{version[1]}"
    found = Kubectl(KUBECTLS[version], version, two_nodes.kubeconfig, namespace, tmp_path_factory.mktemp("home"))
    found("create", "namespace", namespace)
    yield found
    found("delete", "namespace", namespace, "--wait=false")
