"""Clusters of fake programs that end with their test."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fake_cluster import FakeCluster

from miniplane import launch
from miniplane.program import Program
from miniplane.state import StateDir

MakeFake = Callable[..., FakeCluster]


@pytest.fixture
def make_fake(tmp_path: Path) -> Iterator[MakeFake]:
    made: list[FakeCluster] = []

    def make(programs: Callable[[StateDir], Sequence[Program]], name: str = "run") -> FakeCluster:
        cluster = FakeCluster(tmp_path / name, programs)
        made.append(cluster)
        cluster.up()
        return cluster

    yield make
    for cluster in made:
        launch.down(cluster.state)
