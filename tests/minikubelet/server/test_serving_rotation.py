"""The endpoint's certificate changes under open streams; where there is none, it stays closed."""

import asyncio
import os
import ssl
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from endpointpods import pod
from kubeletfakes import eventually

HOST = "127.0.97.1"


async def shown_certificate(kubelet: Any) -> bytes:
    context = ssl.create_default_context(cafile=str(kubelet.pki / "ca.crt"))
    _, writer = await asyncio.open_connection(HOST, kubelet.port, ssl=context)
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return der


async def test_a_new_serving_certificate_is_shown_to_the_next_caller_and_no_stream_breaks(kubelet: Any) -> None:
    await kubelet.run_pod(pod("p", "sh", "-c", "echo before; read line; echo after", container={"stdin": True}))
    old = await shown_certificate(kubelet)
    async with kubelet.apiserver() as client, client.get("/containerLogs/default/p/c?follow=true") as answer:
        assert await answer.content.readany() == b"before\n"
        cert, key = kubelet.serving()
        os.replace(cert, kubelet.config.kubelet.tls_cert_file)
        os.replace(key, kubelet.config.kubelet.tls_private_key_file)
        assert await shown_certificate(kubelet) != old
        async with client.ws_connect("/attach/default/p/c?input=1&output=1",
                                     protocols=["v5.channel.k8s.io"]) as socket:
            await socket.send_bytes(b"\x00go\n")
            async for _ in socket:
                pass
        assert await answer.content.read() == b"after\n"


def bootstrap_file(folder: Path) -> str:
    file = folder / "kubelet.yaml"
    file.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
                    "serverTLSBootstrap: true\n")
    return f"--config={file}"


@pytest.fixture
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return [bootstrap_file(tmp_path)] if getattr(request, "param", "") == "bootstrap" else []


@pytest.mark.parametrize("flags", ["bootstrap"], indirect=True)
async def test_the_endpoint_opens_only_once_the_cluster_has_signed_for_it(kubelet: Any) -> None:
    requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    request = await eventually(lambda: next(
        (item for (path, _), item in kubelet.api.objects.items() if path == requests), None))
    assert request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
    with pytest.raises(OSError):
        await shown_certificate(kubelet)
    pem = kubelet.authority.sign(b64decode(request["spec"]["request"]), request["spec"]["usages"], 3600,
                                 datetime.now(UTC))
    kubelet.api.put(requests, request | {"status": {"certificate": b64encode(pem).decode()}})
    current = kubelet.config.cert_dir / "kubelet-server-current.pem"
    await eventually(current.exists)
    for _ in range(100):
        try:
            der = await shown_certificate(kubelet)
            break
        except OSError:
            await asyncio.sleep(0.01)
    assert ssl.DER_cert_to_PEM_cert(der).strip().encode() in pem
