"""Health checks ask what they name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from filters_server import Server, serving

from miniapiserver.endpoints.health import Check
from miniapiserver.server import reachable
from miniapiserver.storage.interface import KeyValue, StorageUnavailable


class BrokenStorage:
    async def get(self, key: str) -> KeyValue | None:
        raise StorageUnavailable("disk on fire")


@pytest_asyncio.fixture
async def broken(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as made:
        made.parts.server.health.add(Check("etcd-twin", lambda: reachable(BrokenStorage())))  # type: ignore[arg-type]
        yield made


async def test_all_checks_pass_on_a_healthy_server(server: Server) -> None:
    answer = await server.get("/readyz?verbose")
    assert answer.code == 200
    assert answer.raw.decode().splitlines() == [
        "[+]ping ok", "[+]etcd ok", "[+]informer-sync ok", "[+]poststarthook/start-apiserver-admission-initializer ok",
        "[+]poststarthook/rbac/bootstrap-roles ok", "readyz check passed"]  # fmt: skip


async def test_storage_that_does_not_answer_fails_the_check_without_its_reason(broken: Server) -> None:
    for endpoint in ("readyz", "livez", "healthz"):
        answer = await broken.get(f"/{endpoint}")
        assert answer.code == 500
        assert b"[-]etcd-twin failed: reason withheld" in answer.raw and b"fire" not in answer.raw
    assert (await broken.get("/readyz/etcd")).code == 200
    assert (await broken.get("/readyz/etcd-twin")).code == 500
    assert (await broken.get("/readyz?exclude=etcd-twin")).code == 200


async def test_a_check_that_does_not_exist_is_404(server: Server) -> None:
    assert (await server.get("/livez/nope")).code == 404
