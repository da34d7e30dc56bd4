"""The way to an admission webhook: HTTPS to a URL or to a service, always verified.

My job: where it is, TLS with its CA bundle, one POST within its time. Requests go through the egress of their kind:
`cluster` for a service, `controlplane` for a URL. Redirects are not followed: they would carry the objects of this
cluster to whomever the webhook names (CVE-2020-8561). I own the connections; `review` knows what is said.
"""

import asyncio
import base64
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from miniapiserver.admission.webhookrules import Webhook
from miniapiserver.egress.interface import EgressType
from miniapiserver.egress.selector import EgressSelector
from miniapiserver.errors import APIError
from miniapiserver.location import service_port_name
from miniapiserver.registry.objects import Objects
from wire.connections import Ledger
from wire.errors import WireError
from wire.httpclient import HTTPClient
from wire.net import join_host_port
from wire.stream import Stream, open_stream
from wire.tls import client_context

JSON = dict[str, Any]

#: What upstream reads of an answer at most, about; a review holds one object and a patch.
LONGEST_ANSWER = 7 * 1024 * 1024
MOST_CLIENTS = 100


class CallFailed(Exception):
    """The webhook could not be asked, or what came back was no answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` and `port` are dialled through `egress`; `server_name` is what the certificate must say."""

    egress: EgressType
    host: str
    port: int
    server_name: str
    authority: str
    path: str
    ca: str

    @property
    def url(self) -> str:
        return f"https://{self.authority}{self.path}"


class WebhookClient:
    """Lives as long as the server; `aclose` ends its connections. `ledger` is where they are entered."""

    def __init__(self, objects: Objects, egress: EgressSelector) -> None:
        self.ledger = Ledger()
        self._objects, self._egress = objects, egress
        self._clients: dict[Endpoint, HTTPClient] = {}

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        await self._egress.aclose()

    async def post(self, webhook: Webhook, review: JSON) -> bytes:
        """The answer's body. Raises CallFailed."""
        endpoint = self._endpoint(webhook)
        target = f"{endpoint.path}{'&' if '?' in endpoint.path else '?'}timeout={webhook.timeout:g}s"
        headers = [("Content-Type", "application/json"), ("Accept", "application/json"),
                   ("User-Agent", "kube-apiserver-admission")]
        url = f'Post "https://{endpoint.authority}{target}"'
        try:
            async with asyncio.timeout(webhook.timeout):
                request = self._client(endpoint).request("POST", target, headers, orjson.dumps(review))
                async with await request as answer:
                    body = await answer.read(LONGEST_ANSWER)
        except TimeoutError:
            raise CallFailed(f"failed to call webhook: {url}: context deadline exceeded") from None
        except (WireError, OSError, ValueError) as error:
            raise CallFailed(f"failed to call webhook: {url}: {error}") from error
        if answer.status != 200:
            raise CallFailed(f"failed to call webhook: the server answered {answer.status}")
        return body

    def _client(self, endpoint: Endpoint) -> HTTPClient:
        client = self._clients.get(endpoint)
        if client is None:
            try:
                context = client_context(None, ca_data=endpoint.ca or None)
            except ssl.SSLError as error:
                raise CallFailed(f"clientConfig.caBundle: {error}") from error
            client = HTTPClient(lambda: self._connect(endpoint, context), endpoint.authority)
            if len(self._clients) >= MOST_CLIENTS:
                self._clients.pop(next(iter(self._clients))).drop_idle()
            self._clients[endpoint] = client
        return client

    async def _connect(self, endpoint: Endpoint, context: ssl.SSLContext) -> Stream:
        dialer, address = self._egress.dialer(endpoint.egress), join_host_port(endpoint.host, endpoint.port)
        entry = self.ledger.record(source="kube-apiserver", target=address, path=dialer.name,
                                   purpose=f"admission webhook {endpoint.server_name}", credentials="none")
        try:
            sock = await dialer.dial(endpoint.host, endpoint.port)
            stream = await open_stream(sock, ssl=context, server_hostname=endpoint.server_name, via=dialer.name,
                                       address=address)
        except BaseException as error:
            entry.close(str(error) or type(error).__name__)
            raise
        entry.connected(stream, "clientConfig.caBundle" if endpoint.ca else "system roots")
        return stream

    def _endpoint(self, webhook: Webhook) -> Endpoint:
        config = webhook.body.get("clientConfig") or {}
        try:
            ca = base64.b64decode(config.get("caBundle") or "").decode()
        except ValueError as error:
            raise CallFailed(f"clientConfig.caBundle: {error}") from error
        if service := config.get("service"):
            return self._of_service(service, ca)
        url = urlsplit(str(config.get("url") or ""))
        if url.scheme != "https" or not url.hostname:
            raise CallFailed(f"clientConfig.url: {config.get('url')!r} is no https URL")
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        port = url.port or 443
        return Endpoint(EgressType.CONTROL_PLANE, url.hostname, port, url.hostname, url.netloc, path, ca)

    def _of_service(self, service: Mapping[str, Any], ca: str) -> Endpoint:
        """A ready endpoint behind the service: no service proxy has to run where the API server does."""
        namespace, name, port = service["namespace"], service["name"], service.get("port") or 443
        found = self._objects.get("services", namespace, name)
        if found is None:
            raise CallFailed(f'service "{name}" not found')
        full_name = f"{name}.{namespace}.svc"
        host, target = self._address(found, namespace, name, port)
        path = service.get("path") or "/"
        path = path if path.startswith("/") else f"/{path}"
        return Endpoint(EgressType.CLUSTER, host, target, full_name, f"{full_name}:{port}", path, ca)

    def _address(self, service: JSON, namespace: str, name: str, port: int) -> tuple[str, int]:
        if (service.get("spec") or {}).get("type") == "ExternalName":
            return service["spec"]["externalName"], port
        try:
            port_name = service_port_name(service, str(port))
        except APIError as error:
            raise CallFailed(error.message) from error
        endpoints = self._objects.get("endpoints", namespace, name) or {}
        ready = [(address["ip"], int(item["port"])) for subset in endpoints.get("subsets") or ()
                 for item in subset.get("ports") or () if (item.get("name") or "") == port_name
                 for address in subset.get("addresses") or ()]
        if not ready:
            raise CallFailed(f'no endpoints available for service "{name}"')
        return random.choice(ready)
