"""`--kubelet-certificate-authority`, as the documentation tells it, through the API server's own path to a node.

Unset: nothing is verified. Set: name, dates and chain are, on every way to a kubelet; what fails says so in upstream's
words, names the node's address, and the endpoint that failed gets neither a request nor a client certificate.
"""

import contextlib
import dataclasses
import datetime
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from aiohttp import web
from node_cluster import Cluster, cluster, node_at
from wire_certificates import Certificates, write_pair

from wire.http import HTTPServer
from wire.tls import server_context

JSON = dict[str, Any]

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
POD = "/api/v1/namespaces/default/pods/p"
SPDY = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
FORWARD = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n"
V5 = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n")  # fmt: skip
#: Every way that ends at a kubelet's HTTPS endpoint: method, target, headers.
WAYS = {
    "log": ("GET", f"{POD}/log", ""),
    "log -f": ("GET", f"{POD}/log?follow=true", ""),
    "exec, SPDY": ("POST", f"{POD}/exec?command=id&stdout=true", SPDY),
    "exec, WebSocket": ("GET", f"{POD}/exec?command=id&stdout=true", V5),
    "attach, SPDY": ("POST", f"{POD}/attach?stdout=true", SPDY),
    "port-forward, SPDY": ("POST", f"{POD}/portforward", FORWARD),
    "nodes/proxy": ("GET", "/api/v1/nodes/n/proxy/metrics", ""),
}


@dataclasses.dataclass
class Endpoint:
    """Who answers at the node's address, and what it got to see."""

    requests: list[str] = dataclasses.field(default_factory=list)
    client_certificates: list[str] = dataclasses.field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        peer: ssl.SSLObject = request.transport.get_extra_info("ssl_object")  # type: ignore[union-attr]
        subject = (peer.getpeercert() or {}).get("subject", ())
        self.client_certificates += [value for row in subject for key, value in row if key == "commonName"]
        return web.Response(text="what a pod said\n")


def issued_by(authority: trustme.CA, name: str = "127.0.0.1", *, begins: int = -1, ends: int = 1) -> trustme.LeafCert:
    return authority.issue_cert(name, not_before=NOW + begins * DAY, not_after=NOW + ends * DAY)


@contextlib.asynccontextmanager
async def node_showing(
    certificates: Certificates, shown: trustme.LeafCert, folder: Path, *, verify: bool = True, ca: Path | None = None
) -> AsyncIterator[tuple[Cluster, Endpoint]]:
    """A core whose node's address is answered by an endpoint with the certificate `shown`."""
    endpoint = Endpoint()
    cert, key = write_pair(folder, "shown", shown)
    if ca is not None:
        certificates = dataclasses.replace(certificates, ca=str(ca))
    async with cluster(certificates, None, verify=verify) as made, HTTPServer(endpoint.handle, grace=0.05) as server:
        # It asks for a client certificate: a man in the middle would.
        port = await server.listen(ssl_context=server_context(cert, key, [certificates.folder / "ca.crt"]))
        made.objects.nodes["n"] = node_at("127.0.0.1", port)
        made.kubelet_port = port
        yield made, endpoint


async def refusal(made: Cluster) -> str:
    status, body = await made.ask(f"{POD}/log")
    assert status == 500
    message: str = orjson.loads(body)["message"]
    return message


def self_signed() -> trustme.LeafCert:
    """As a kubelet without `--tls-cert-file` makes it: by a CA that nobody has."""
    return issued_by(trustme.CA())


@pytest.mark.parametrize("way", WAYS)
async def test_unset_nothing_is_verified_and_our_credentials_are_shown_to_anybody(
    way: str, certificates: Certificates, tmp_path: Path
) -> None:
    method, target, headers = WAYS[way]
    async with node_showing(certificates, self_signed(), tmp_path, verify=False) as (made, endpoint):
        await made.ask(target, method, headers)
        entry = made.ledger.snapshot()[0]
    assert len(endpoint.requests) == 1
    assert endpoint.client_certificates == ["kube-apiserver-kubelet-client"]
    assert (entry["verifiedBy"], entry["tls"]["version"]) == (None, "TLSv1.3")
    assert "kube-apiserver-kubelet-client" in entry["credentials"]


@pytest.mark.parametrize("way", WAYS)
async def test_set_a_stranger_gets_neither_a_request_nor_a_client_certificate(
    way: str, certificates: Certificates, tmp_path: Path
) -> None:
    method, target, headers = WAYS[way]
    async with node_showing(certificates, self_signed(), tmp_path) as (made, endpoint):
        status, _, body = await made.exchange(target, method, headers)
        entry = made.ledger.snapshot()[0]
    assert (endpoint.requests, endpoint.client_certificates) == ([], [])
    assert status == 101 or (status >= 500 and b"x509: certificate signed by unknown authority" in body)
    assert (entry["state"], entry["credentials"], entry["bytesOut"]) == ("failed", "none", 0)
    # Who it was is known all the same.
    assert entry["peerCertificate"]["sans"] == ["127.0.0.1"]


@pytest.mark.parametrize("way", WAYS)
async def test_set_the_right_certificate_is_accepted(way: str, certificates: Certificates, tmp_path: Path) -> None:
    method, target, headers = WAYS[way]
    async with node_showing(certificates, issued_by(certificates.authority), tmp_path) as (made, endpoint):
        await made.ask(target, method, headers)
        entry = made.ledger.snapshot()[0]
    assert len(endpoint.requests) == 1
    assert endpoint.client_certificates == ["kube-apiserver-kubelet-client"]
    assert entry["verifiedBy"] == certificates.ca


#: What is wrong with the certificate → what the error says after the address (Go's crypto/x509).
WRONG = {
    "self-signed": (lambda _: self_signed(), "certificate signed by unknown authority"),
    "another node's": (lambda ours: issued_by(ours, "127.0.0.9"), "certificate is valid for 127.0.0.9, not 127.0.0.1"),
    "a name, no address": (lambda ours: issued_by(ours, "node-1"),
                           "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"),
    "expired": (lambda ours: issued_by(ours, begins=-9, ends=-2),
                "certificate has expired or is not yet valid: current time "),
    "not yet valid": (lambda ours: issued_by(ours, begins=2, ends=9),
                      "certificate has expired or is not yet valid: current time "),
    # Go looks at the dates, then at the name, then at the signer; so does our wording.
    "a stranger's for another name": (lambda _: issued_by(trustme.CA(), "127.0.0.9"),
                                      "certificate is valid for 127.0.0.9, not 127.0.0.1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
async def test_each_refusal_names_the_nodes_address_and_the_reason(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    make, reason = WRONG[case]
    async with node_showing(certificates, make(certificates.authority), tmp_path) as (made, endpoint):
        message = await refusal(made)
        url = f"https://127.0.0.1:{made.kubelet_port}/containerLogs/default/p/c"
        assert message.startswith(f'Get "{url}": tls: failed to verify certificate: x509: {reason}')
        assert endpoint.requests == []


async def test_expiry_says_which_date_passed_and_not_yet_valid_which_has_not_come(
    certificates: Certificates, tmp_path: Path
) -> None:
    for begins, ends, word in ((-9, -2, "is after"), (2, 9, "is before")):
        shown = issued_by(certificates.authority, begins=begins, ends=ends)
        limit = (NOW + (ends if word == "is after" else begins) * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
        async with node_showing(certificates, shown, tmp_path) as (made, _):
            assert (await refusal(made)).endswith(f"{word} {limit}")


async def test_exec_says_it_too(certificates: Certificates, tmp_path: Path) -> None:
    async with node_showing(certificates, issued_by(certificates.authority, "127.0.0.9"), tmp_path) as (made, _):
        status, body = await made.ask(WAYS["exec, SPDY"][1], "POST", SPDY)
        message = orjson.loads(body)["message"]
    assert status == 500
    reason = "x509: certificate is valid for 127.0.0.9, not 127.0.0.1"
    assert message.endswith(f"error dialing backend: tls: failed to verify certificate: {reason}")


async def test_a_bundle_rotated_on_disk_is_used_without_a_restart(certificates: Certificates, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    bundle = tmp_path / "kubelet-ca.crt"
    old.cert_pem.write_to_path(bundle)
    async with node_showing(certificates, issued_by(new), tmp_path, ca=bundle) as (made, endpoint):
        assert "x509: certificate signed by unknown authority" in await refusal(made)
        both = tmp_path / "next.crt"
        both.write_bytes(old.cert_pem.bytes() + new.cert_pem.bytes())
        os.replace(both, bundle)
        status, body = await made.ask(f"{POD}/log")
        assert (status, b"what a pod said" in body, len(endpoint.requests)) == (200, True, 1)


async def test_a_bundle_that_becomes_garbage_keeps_the_last_good_one(
    certificates: Certificates, tmp_path: Path
) -> None:
    bundle = tmp_path / "kubelet-ca.crt"
    certificates.authority.cert_pem.write_to_path(bundle)
    async with node_showing(certificates, issued_by(certificates.authority), tmp_path, ca=bundle) as (made, endpoint):
        assert (await made.ask(f"{POD}/log"))[0] == 200
        bundle.write_text("half a cert")
        assert (await made.ask(f"{POD}/log"))[0] == 200
    assert endpoint.client_certificates == ["kube-apiserver-kubelet-client"] * 2


@pytest.mark.parametrize("way", WAYS)
async def test_skipping_verification_is_for_logs_only(way: str, certificates: Certificates, tmp_path: Path) -> None:
    method, target, headers = WAYS[way]
    target += ("&" if "?" in target else "?") + "insecureSkipTLSVerifyBackend=true"
    async with node_showing(certificates, self_signed(), tmp_path) as (made, endpoint):
        await made.ask(target, method, headers)
        entry = made.ledger.snapshot()[0]
    assert len(endpoint.requests) == (1 if way.startswith("log") else 0)
    assert entry["verifiedBy"] is None


async def test_nothing_at_the_nodes_address_that_speaks_tls_is_named_as_such(certificates: Certificates) -> None:
    endpoint = Endpoint()
    async with cluster(certificates, None) as made, HTTPServer(endpoint.handle, grace=0.05) as server:
        made.objects.nodes["n"] = node_at("127.0.0.1", await server.listen())
        assert "tls: first record does not look like a TLS handshake" in await refusal(made)
    assert endpoint.requests == []
