import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from etcd_process import Etcd, running_etcd

from miniapiserver.storage.etcd import EtcdStorage
from miniapiserver.storage.interface import Storage
from miniapiserver.storage.sqlite import SQLiteStorage

Opener = Callable[[], AbstractAsyncContextManager[Storage]]


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture(params=["sqlite", "etcd"])
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the engine under test; a second call opens the same data again."""
    if request.param == "sqlite":
        return lambda: SQLiteStorage(tmp_path / "state.db")
    etcd: Etcd = request.getfixturevalue("etcd")
    return lambda: EtcdStorage([etcd.url])


@pytest.fixture
async def storage(open_engine: Opener) -> AsyncIterator[Storage]:
    async with open_engine() as opened:
        yield opened
