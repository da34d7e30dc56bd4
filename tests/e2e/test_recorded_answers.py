"""Our answers are Kubernetes' answers, on both storages."""

import ssl

import aiohttp
import pytest

from miniplane.testing import MakeCluster
from tests.e2e.recorded import conversation, replay

pytestmark = pytest.mark.e2e

#: What must differ, and where: the recording was made by a user called admin, our administrator has kubeadm's name.
OTHERWISE = {"self-subject-review": "$.status.userInfo.username: "}


@pytest.mark.parametrize("storage", ["sqlite", "etcd"])
async def test_every_recorded_answer_of_kubernetes_is_ours_too(make_cluster: MakeCluster, storage: str) -> None:
    cluster = make_cluster(storage=storage)
    context = ssl.create_default_context(cafile=cluster.state.path / "pki" / "ca.crt")
    differences = {}
    async with (
        cluster.session() as admin,
        aiohttp.ClientSession(cluster.url, connector=aiohttp.TCPConnector(ssl=context)) as nobody,
    ):
        for exchange in conversation():
            if found := await replay(exchange, admin, nobody):
                differences[exchange.name] = found
    assert differences.keys() == OTHERWISE.keys()
    for name, where in OTHERWISE.items():
        assert differences[name].startswith(where)
