"""What only etcd's engine has: endpoints that fail, TLS, shared leases, a watch that outlives nothing."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest
import trustme
from etcd_process import Etcd, free_ports, running_etcd

from miniapiserver.storage.etcd import EtcdStorage
from miniapiserver.storage.interface import StorageUnavailable
from miniapiserver.watchcache import WatchCaches
from wire.tls import client_context

VALUE = b'{"kind":"A","apiVersion":"v1","metadata":{"name":"x"}}'


async def test_the_next_endpoint_is_asked_when_one_is_gone(etcd: Etcd) -> None:
    (dead,) = free_ports(1)
    async with EtcdStorage([f"http://127.0.0.1:{dead}", etcd.url]) as storage:
        key = f"/registry/{uuid4()}"
        revision = await storage.create(key, b"x")
        assert await storage.current_revision() >= revision


async def test_no_endpoint_at_all_is_unavailable() -> None:
    (dead,) = free_ports(1)
    async with EtcdStorage([f"http://127.0.0.1:{dead}"]) as storage:
        with pytest.raises(StorageUnavailable, match=str(dead)):
            await storage.get("/registry/a")
        with pytest.raises(StorageUnavailable, match=str(dead)):
            await anext(storage.watch("", after=1))


async def test_a_watch_ends_with_an_error_when_etcd_dies(tmp_path: Path) -> None:
    with running_etcd(tmp_path) as own:
        async with EtcdStorage([own.url]) as storage, aclosing(storage.watch("", after=1)) as watch:
            assert await anext(watch) == []
            own.process.kill()
            with pytest.raises(StorageUnavailable):
                await anext(watch)
            with pytest.raises(StorageUnavailable):
                await storage.create("/registry/a", b"x")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_identity(authority: trustme.CA, directory: Path, name: str) -> tuple[Path, Path]:
    issued = authority.issue_cert("127.0.0.1", common_name=name)
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


async def test_tls_with_client_certificates_and_their_twins(tmp_path: Path, authority: trustme.CA) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.cert_pem.bytes())
    server_cert, server_key = write_identity(authority, tmp_path, "server")
    client_cert, client_key = write_identity(authority, tmp_path, "client")
    ours = client_context(ca, client_cert, client_key)
    flags = ["--cert-file", str(server_cert), "--key-file", str(server_key), "--client-cert-auth",
             "--trusted-ca-file", str(ca)]
    with running_etcd(tmp_path, extra=flags, tls=ours) as secured:
        async with EtcdStorage([secured.url], ours) as storage:
            assert await storage.create("/registry/a", b"x") > 1
        async with EtcdStorage([secured.url], client_context(ca)) as without_certificate:
            with pytest.raises(StorageUnavailable):
                await without_certificate.get("/registry/a")
        stranger = tmp_path / "stranger.crt"
        stranger.write_bytes(trustme.CA().cert_pem.bytes())
        async with EtcdStorage([secured.url], client_context(stranger, client_cert, client_key)) as untrusting:
            with pytest.raises(StorageUnavailable, match="certificate"):
                await untrusting.get("/registry/a")


async def test_keys_of_one_lifetime_share_a_lease(etcd: Etcd) -> None:
    async with EtcdStorage([etcd.url]) as storage:
        for _ in range(3):
            await storage.create(f"/registry/{uuid4()}", b"x", ttl=3600)
        lease = storage._leases[3600]
        assert lease.keys == 3
        lease.expires -= 3600
        await storage.create(f"/registry/{uuid4()}", b"x", ttl=3600)
        assert storage._leases[3600].id != lease.id


async def test_the_watch_cache_survives_a_restart_of_etcd(tmp_path: Path) -> None:
    """The cache serves what it has while etcd is away, and goes on without a gap when it is back."""
    with running_etcd(tmp_path) as own:
        async with EtcdStorage([own.url]) as storage, WatchCaches(storage) as caches:
            cache = caches.cache("as", lambda obj: {})
            one = await cache.create(cache.prefix + "one", VALUE)
            watch = await cache.watch(after_revision=one)
            own.process.kill()
            own.process.wait()
            held = cache.get(cache.prefix + "one")
            assert held
            assert held.revision == one
            with pytest.raises(StorageUnavailable):
                await cache.get_fresh(cache.prefix + "one")
            restarted = await asyncio.create_subprocess_exec(
                *(str(word) for word in own.process.args), stdout=asyncio.subprocess.DEVNULL,  # type: ignore[union-attr]
                stderr=asyncio.subprocess.DEVNULL)
            try:
                async with asyncio.timeout(20):
                    while True:
                        try:
                            two = await cache.create(cache.prefix + "two", VALUE)
                            break
                        except StorageUnavailable:
                            await asyncio.sleep(0.05)
                    assert [event.revision for event in await watch.batch()] == [two]
                    watch.close()
            finally:
                restarted.kill()
                await restarted.wait()


async def test_a_consistent_read_shows_what_another_server_wrote(etcd: Etcd) -> None:
    async with (EtcdStorage([etcd.url]) as ours, EtcdStorage([etcd.url]) as theirs, WatchCaches(ours) as caches):
        cache = caches.cache(str(uuid4()), lambda obj: {})
        await cache.start()
        for number in range(20):
            revision = await theirs.create(f"{cache.prefix}{number}", VALUE)
            held = await cache.get_fresh(f"{cache.prefix}{number}")
            assert held
            assert held.revision == revision
