"""TLS bootstrapping and rotation against an API server that signs."""

import asyncio
import os
from base64 import b64decode, b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kubeletfakes import START, FakeClock, eventually
from kubeletstub import StubAPI

from certs import kubeconfig
from certs.authority import Authority, load_certificate
from certs.errors import CertsError
from certs.requests import parse_csr
from minikubelet.bootstrap import ensure_identity
from minikubelet.config import Config, parse
from minikubelet.rotatingcertificate import REQUESTS, RotatingCertificate, Wanted
from wire.apiclient import Client

HOUR = 3600.0


class Signer:
    """Approves and signs whatever is asked, or does with it what the test says."""

    def __init__(self, api: StubAPI, clock: FakeClock) -> None:
        self.authority = Authority.create("kubernetes", START - timedelta(days=1))
        self.api, self.clock = api, clock
        self.seen: list[dict[str, Any]] = []

    async def sign_next(self) -> dict[str, Any]:
        request = await self._open()
        self.seen.append(request)
        pem = b64decode(request["spec"]["request"])
        signed = self.authority.sign(pem, request["spec"]["usages"], HOUR, self.clock.now())
        self.api.put(REQUESTS, request | {"status": {"conditions": [{"type": "Approved", "status": "True"}],
                                                     "certificate": b64encode(signed).decode()}})
        return request

    async def _open(self) -> dict[str, Any]:
        found: dict[str, Any] = await eventually(lambda: next(
            (item for (path, _), item in self.api.objects.items()
             if path == REQUESTS and "status" not in item), None))
        return found

    async def deny_next(self) -> None:
        request = await self._open()
        self.api.put(REQUESTS, request | {"status": {"conditions": [
            {"type": "Denied", "status": "True", "message": "no"}]}})


def bootstrapping(tmp_path: Path, api: StubAPI, authority: Authority) -> Config:
    document = kubeconfig.Entry.with_token("c", "u", f"http://127.0.0.1:{api.port}", authority.pair.cert, "abc.def")
    kubeconfig.write(tmp_path / "bootstrap", document)
    return parse([f"--kubeconfig={tmp_path / 'kubelet.conf'}", f"--bootstrap-kubeconfig={tmp_path / 'bootstrap'}",
                  "--hostname-override=node-1", "--node-ip=127.0.96.1", f"--root-dir={tmp_path}"])


async def test_a_token_becomes_a_kubeconfig_with_the_nodes_certificate(tmp_path: Path) -> None:
    clock = FakeClock()
    async with StubAPI() as api:
        signer = Signer(api, clock)
        config = bootstrapping(tmp_path, api, signer.authority)
        work = asyncio.create_task(ensure_identity(config, clock))
        request = await signer.sign_next()
        await work
    assert request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert request["spec"]["usages"] == ["digital signature", "client auth"]
    asked = parse_csr(b64decode(request["spec"]["request"]))
    assert (asked.common_name, asked.organizations, asked.has_sans) == ("system:node:node-1", ("system:nodes",), False)
    written = kubeconfig.load(config.kubeconfig).credentials()
    assert written.server == f"http://127.0.0.1:{api.port}"
    assert written.ca == signer.authority.pair.cert
    assert written.client_cert is not None and b"PRIVATE KEY" in written.client_cert
    assert (tmp_path / "pki" / "kubelet-client-current.pem").stat().st_mode & 0o777 == 0o600


async def test_a_denied_request_is_asked_again_later_and_writes_no_certificate(tmp_path: Path) -> None:
    clock = FakeClock()
    async with StubAPI() as api:
        signer = Signer(api, clock)
        config = bootstrapping(tmp_path, api, signer.authority)
        work = asyncio.create_task(ensure_identity(config, clock))
        await signer.deny_next()
        await eventually(lambda: clock._sleepers and not work.done())
        assert not (tmp_path / "pki" / "kubelet-client-current.pem").exists()
        for _ in range(20):
            await clock.advance(1)
            await asyncio.sleep(0.002)
        await signer.sign_next()
        await work


async def test_a_good_kubeconfig_is_left_alone_and_an_expired_one_is_renewed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with StubAPI() as api:
        signer = Signer(api, clock)
        config = bootstrapping(tmp_path, api, signer.authority)
        work = asyncio.create_task(ensure_identity(config, clock))
        await signer.sign_next()
        await work
        await ensure_identity(config, clock)
        assert len(signer.seen) == 1
        clock.passed += 2 * HOUR
        work = asyncio.create_task(ensure_identity(config, clock))
        await signer.sign_next()
        await work


async def test_without_any_kubeconfig_the_error_says_what_is_missing(tmp_path: Path) -> None:
    config = parse([f"--kubeconfig={tmp_path / 'none'}", "--node-ip=127.0.0.1", f"--root-dir={tmp_path}"])
    with pytest.raises(CertsError, match="no such kubeconfig"):
        await ensure_identity(config, FakeClock())


async def test_rotation_happens_before_the_end_and_keeps_the_old_pair_readable(tmp_path: Path) -> None:
    clock = FakeClock()
    async with StubAPI() as api:
        signer = Signer(api, clock)
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        async with Client.from_kubeconfig(tmp_path / "kubeconfig") as client:
            certificate = RotatingCertificate(Wanted.serving("node-1", "127.0.96.1"), tmp_path, clock)
            keeping = asyncio.create_task(certificate.keep(client))
            request = await signer.sign_next()
            await eventually(certificate.is_valid)
            asked = parse_csr(b64decode(request["spec"]["request"]))
            assert (asked.dns, asked.ips) == (("node-1",), ("127.0.96.1",))
            first = certificate.path.read_bytes()
            lifetime = certificate.lifetime()
            assert lifetime is not None
            await asyncio.sleep(0.01)
            whole = (lifetime.not_after - START).total_seconds()
            await clock.advance(0.6 * whole)
            assert len(signer.seen) == 1
            await clock.advance(0.35 * whole)
            await signer.sign_next()
            await eventually(lambda: certificate.path.read_bytes() != first)
            assert load_certificate(certificate.path.read_bytes(), "x").not_valid_after_utc > lifetime.not_after
            assert len([name for name in os.listdir(tmp_path) if name.startswith("kubelet-server-2")]) == 2
            keeping.cancel()
            await asyncio.wait([keeping])


async def test_a_broken_file_counts_as_no_certificate(tmp_path: Path) -> None:
    certificate = RotatingCertificate(Wanted.client("node-1"), tmp_path, FakeClock())
    assert not certificate.is_valid()
    certificate.path.write_bytes(b"garbage")
    assert certificate.lifetime() is None
