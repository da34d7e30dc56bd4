"""A certificate of this kubelet that the cluster's CA signs, kept from expiring.

My job: make a key, post a CertificateSigningRequest, wait until it is approved and signed, put certificate and key
into one file behind a symlink that never points at half of a pair; again at 70-90 % of its life (upstream client-go
util/certificate). I own `<prefix>-*.pem` in the certificate folder. Neighbours: `bootstrap` uses me for the client's,
`kubelet` for the serving certificate. Rule: until the new pair is on disk the old one stays in use; open streams are
never touched, they keep the identity they were opened with.
"""

import asyncio
import contextlib
import logging
import os
import random
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from certs.authority import load_certificate
from certs.errors import CertsError
from certs.layout import read, write_private
from certs.requests import new_csr, new_key
from minikubelet.clock import Clock, wait_until
from minikubelet.logline import kv
from wire.apiclient import APIError, Client, resource_path
from wire.errors import WireError
from wire.informer import Informer

JSON = dict[str, Any]

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
REQUESTS = resource_path("certificates.k8s.io", "v1", "certificatesigningrequests")
PATIENCE = 15 * 60.0
LOOK_EVERY = 3600.0
"""A machine that slept has an older certificate than its timers think."""
FIRST_RETRY, LAST_RETRY = 2.0, 32.0

log = logging.getLogger(__name__)


class RequestRefused(Exception):
    """The signing request was denied, failed, or nobody answered it in time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the certificate is to say, and who is to sign it."""

    prefix: str
    signer: str
    usages: tuple[str, ...]
    node_name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    @classmethod
    def client(cls, node_name: str) -> "Wanted":
        return cls("kubelet-client", CLIENT_SIGNER, ("digital signature", "client auth"), node_name)

    @classmethod
    def serving(cls, node_name: str, node_ip: str) -> "Wanted":
        return cls("kubelet-server", SERVING_SIGNER, ("digital signature", "server auth"), node_name,
                   (node_name,), (node_ip,))


@dataclass(frozen=True, slots=True)
class Lifetime:
    not_before: datetime
    not_after: datetime

    def deadline(self, share: float) -> datetime:
        """When `share` of the life is over."""
        return self.not_before + (self.not_after - self.not_before) * share


class RotatingCertificate:
    """One certificate and its successors. Lives as long as the kubelet."""

    def __init__(self, wanted: Wanted, folder: Path, clock: Clock) -> None:
        self._wanted, self._folder, self._clock = wanted, folder, clock
        self.path = folder / f"{wanted.prefix}-current.pem"

    def lifetime(self) -> Lifetime | None:
        """Of the pair on disk; None if there is none that can be read."""
        try:
            content = read(self.path)
            if content is None:
                return None
            certificate = load_certificate(content, str(self.path))
        except CertsError as error:
            log.warning("certificate.unreadable %s", kv(file=self.path, error=error))
            return None
        return Lifetime(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def is_valid(self) -> bool:
        lifetime = self.lifetime()
        return lifetime is not None and lifetime.not_before <= self._clock.now() < lifetime.not_after

    async def obtain(self, client: Client) -> None:
        """Ask until a certificate is here."""
        delay = FIRST_RETRY
        while True:
            try:
                await self._obtain_once(client)
                return
            except (APIError, WireError, RequestRefused) as error:
                log.warning("certificate.retry %s", kv(signer=self._wanted.signer, error=error))
            await self._clock.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)

    async def keep(self, client: Client) -> None:
        """Rotate for ever. `client` speaks with the certificate that is rotated, or another valid one."""
        while True:
            lifetime = self.lifetime()
            if lifetime is not None:
                deadline = lifetime.deadline(random.uniform(0.7, 0.9))
                log.info("certificate.rotation %s", kv(file=self.path.name, at=deadline.isoformat(timespec="seconds")))
                while (left := (deadline - self._clock.now()).total_seconds()) > 0:
                    await self._clock.sleep(min(left, LOOK_EVERY))
            await self.obtain(client)

    async def _obtain_once(self, client: Client) -> None:
        wanted = self._wanted
        key = new_key()
        request = new_csr(key, f"system:node:{wanted.node_name}", ("system:nodes",), wanted.dns, wanted.ips)
        posted = await client.create(REQUESTS, {
            "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1",
            "metadata": {"generateName": "csr-"},
            "spec": {"request": b64encode(request).decode(), "signerName": wanted.signer,
                     "usages": list(wanted.usages)}})
        name = posted["metadata"]["name"]
        log.info("certificate.requested %s", kv(csr=name, signer=wanted.signer))
        certificate = await self._signed(client, name)
        self._store(certificate, key)
        log.info("certificate.stored %s", kv(csr=name, file=self.path.name))

    async def _signed(self, client: Client, name: str) -> bytes:
        """Raises RequestRefused."""
        informer = Informer(client, REQUESTS, fieldSelector=f"metadata.name={name}")
        decided = asyncio.Event()
        answers: list[bytes | RequestRefused] = []

        def look(kind: str, new: JSON | None, old: JSON | None) -> None:
            if new is not None and not answers and (answer := _answer(new)) is not None:
                answers.append(answer)
                decided.set()

        informer.subscribe(look)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(informer.run(), name=f"csr {name}")
            await wait_until(decided, self._clock, PATIENCE)
            watching.cancel()
        if not answers:
            raise RequestRefused(f"certificate signing request {name} was not signed in {PATIENCE:.0f}s")
        if isinstance(answers[0], RequestRefused):
            raise answers[0]
        return answers[0]

    def _store(self, certificate: bytes, key: bytes) -> None:
        """Write the pair beside the old one, then move the symlink: whoever reads sees one pair or the other."""
        stamp = self._clock.now().strftime("%Y-%m-%d-%H-%M-%S")
        target = self._folder / f"{self._wanted.prefix}-{stamp}.pem"
        count = 0
        while target.exists():
            count += 1
            target = self._folder / f"{self._wanted.prefix}-{stamp}-{count}.pem"
        write_private(target, certificate + key)
        link = self._folder / f".{self.path.name}.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(target.name)
        previous = os.path.realpath(self.path)
        os.replace(link, self.path)
        self._remove_older_than(target, Path(previous))

    def _remove_older_than(self, current: Path, previous: Path) -> None:
        """The present and the previous pair are kept; a reader may be between the two files of one load."""
        for old in self._folder.glob(f"{self._wanted.prefix}-2*.pem"):
            if old not in (current, previous):
                with contextlib.suppress(OSError):
                    old.unlink()


def _answer(request: JSON) -> bytes | RequestRefused | None:
    """The certificate, a refusal, or None while it is open."""
    status = request.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Denied", "Failed"):
            return RequestRefused(f"certificate signing request {request['metadata']['name']} is "
                                  f"{condition['type'].lower()}: {condition.get('message', '')}")
    if status.get("certificate"):
        return b64decode(status["certificate"])
    return None
