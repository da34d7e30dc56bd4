"""A whole kubelet in this process: real runtime, real TLS, stub API server."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubeletfakes import eventually
from kubeletstub import StubAPI

from certs.authority import Authority
from certs.requests import new_csr, new_key
from minikubelet.config import Config, parse
from minikubelet.kubelet import serve

JSON = dict[str, Any]
HOST = "127.0.97.1"
SERVING = ("digital signature", "key encipherment", "server auth")


@dataclass
class Kubelet:
    """What a test needs of the running kubelet."""

    api: StubAPI
    config: Config
    port: int
    pki: Path
    authority: Authority

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    def certificate(self, name: str, organizations: tuple[str, ...] = (), authority: Authority | None = None,
                    usages: tuple[str, ...] = ("digital signature", "client auth")) -> tuple[Path, Path]:
        return issue(self.pki, authority or self.authority, name, organizations, usages=usages)

    def serving(self) -> tuple[Path, Path]:
        return issue(self.pki, self.authority, "system:node:node-1", ("system:nodes",), ips=(HOST,), usages=SERVING)

    def client(self, pair: tuple[Path, Path] | None, **headers: str) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        if pair is not None:
            context.load_cert_chain(*pair)
        return aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=context), headers=headers)

    def apiserver(self) -> aiohttp.ClientSession:
        return self.client(self.certificate("kube-apiserver-kubelet-client"))

    async def run_pod(self, pod: JSON, phase: str = "Running") -> JSON:
        self.api.put_pod(pod)
        name = pod["metadata"]["name"]
        await eventually(lambda: self.api.pod(name)["status"]["phase"] == phase, f"{name} {phase}")
        return self.api.pod(name)


def issue(folder: Path, authority: Authority, name: str, organizations: tuple[str, ...] = (), *,
          usages: tuple[str, ...], ips: tuple[str, ...] = ()) -> tuple[Path, Path]:
    key = new_key()
    pem = authority.sign(new_csr(key, name, organizations, ips=ips), usages, 3600, datetime.now(UTC))
    stem = folder / f"{name.replace(':', '-')}-{abs(hash(pem))}"
    stem.with_suffix(".crt").write_bytes(pem)
    stem.with_suffix(".key").write_bytes(key)
    return stem.with_suffix(".crt"), stem.with_suffix(".key")


@pytest.fixture
def flags() -> list[str]:
    return []


@pytest.fixture
async def kubelet(tmp_path: Path, flags: list[str], unused_tcp_port: int) -> AsyncIterator[Kubelet]:
    pki = tmp_path / "pki"
    pki.mkdir()
    authority = Authority.create("kubernetes", datetime.now(UTC))
    (pki / "ca.crt").write_bytes(authority.pair.cert)
    cert, key = issue(pki, authority, "system:node:node-1", ("system:nodes",), ips=(HOST,), usages=SERVING)
    config = parse([
        f"--kubeconfig={tmp_path / 'kubeconfig'}", "--hostname-override=node-1", f"--node-ip={HOST}",
        f"--address={HOST}", f"--port={unused_tcp_port}", "--healthz-port=0", f"--root-dir={tmp_path / 'root'}",
        f"--client-ca-file={pki / 'ca.crt'}", f"--tls-cert-file={cert}", f"--tls-private-key-file={key}",
        "--pod-cidr=127.244.97.0/24", *flags])
    async with StubAPI() as api:
        config.kubeconfig.write_text(api.kubeconfig())
        work = asyncio.create_task(serve(config), name="kubelet")
        await eventually(lambda: work.done() or api.get("/api/v1/nodes", "node-1"))
        if work.done():
            await work
        yield Kubelet(api, config, unused_tcp_port, pki, authority)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled(), work
