"""A runtime per test, at the best level this machine allows and as plain processes."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtimebench import Bench, bench_at

from minikubelet.runtime.isolation import plain


@pytest.fixture
async def isolated(tmp_path: Path) -> AsyncIterator[Bench]:
    """With namespaces; a machine without any cannot run these tests."""
    async for bench in bench_at(tmp_path):
        if not bench.runtime.capabilities().pids:
            pytest.skip(bench.runtime.capabilities().words)
        yield bench


@pytest.fixture
async def plain_bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async for bench in bench_at(tmp_path / "plain", level=plain(is_root=os.geteuid() == 0)):
        yield bench


@pytest.fixture(params=["isolated", "plain"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Both levels: the promises of the interface hold at each."""
    level = plain(is_root=os.geteuid() == 0) if request.param == "plain" else None
    async for bench in bench_at(tmp_path, level=level):
        yield bench
