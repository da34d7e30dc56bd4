"""Certificate requests: which are approved without a human, and what a signer signs.

My job: approve kubelets' client certificates when the requester may have one, sign what is approved and within its
signer's rules, delete old requests (`pkg/controller/certificates/{approver,signer,cleaner}`); and, beyond upstream,
approve a kubelet's serving certificate when every name in it is the node's own. `certs` builds the certificate.
"""

import base64
import datetime
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from certs.authority import Authority
from certs.errors import InvalidCSR
from certs.requests import CertificateRequest, parse_csr
from minicontroller.actions import Action, After, Delete, Update
from minicontroller.controller import Controller, Key
from minicontroller.informers import Informers
from minicontroller.podstate import is_true, seconds, timestamp
from wire.apiclient import resource_path

JSON = dict[str, Any]

CLIENT, KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING, LEGACY = "kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)
NODES_GROUP, NODE_PREFIX = "system:nodes", "system:node:"
SIGNING_SECONDS = 365 * 24 * 3600.0
SHORTEST_SECONDS = 600.0
#: How long requests are kept (`cleaner.go`).
KEEP_DONE, KEEP_PENDING, LOOK_EVERY = 3600.0, 24 * 3600.0, 3600.0
APPROVED_MESSAGE = "Auto approving kubelet client certificate after SubjectAccessReview."


@dataclass(frozen=True, slots=True)
class Usages:
    """What a signer insists on, and what else it accepts."""

    required: frozenset[str]
    allowed: frozenset[str]

    def problem(self, usages: Iterable[str]) -> str:
        given = set(usages)
        missing, extra = self.required - given, given - self.required - self.allowed
        return ", ".join(sorted(missing or extra)) if missing or extra else ""


RULES: dict[str, Usages] = {
    KUBELET_CLIENT: Usages(frozenset({"digital signature", "client auth"}), frozenset({"key encipherment"})),
    KUBELET_SERVING: Usages(frozenset({"digital signature", "server auth"}), frozenset({"key encipherment"})),
    CLIENT: Usages(frozenset({"client auth"}), frozenset({"digital signature", "key encipherment"})),
}


def request_of(csr: JSON) -> CertificateRequest:
    """Raises InvalidCSR."""
    return parse_csr(base64.b64decode(csr["spec"]["request"]))


def problem_with(signer: str, request: CertificateRequest, usages: list[str]) -> str:
    """Why this signer will not sign; "" when it will."""
    rules = RULES.get(signer)
    if rules is not None and (bad := rules.problem(usages)):
        kind = "serving" if signer == KUBELET_SERVING else "client"
        return f"invalid usage for {kind} certificate: {bad}"
    if signer in (KUBELET_CLIENT, KUBELET_SERVING):
        if request.organizations != (NODES_GROUP,):
            return "subject organization is not system:nodes"
        if not request.common_name.startswith(NODE_PREFIX):
            return "subject common name does not begin with system:node:"
        if request.emails or request.uris:
            return "email and URI SubjectAltNames are not allowed"
        if signer == KUBELET_CLIENT and (request.dns or request.ips):
            return "DNS and IP SubjectAltNames are not allowed"
        if signer == KUBELET_SERVING and not (request.dns or request.ips):
            return "DNS or IP SubjectAltName is required"
    return ""


def is_decided(csr: JSON) -> bool:
    return bool((csr.get("status") or {}).get("certificate")) or is_true(csr, "Approved") or is_true(csr, "Denied")


class Approver(Controller):
    """Asks the API server whether the requester may have what it wants (SubjectAccessReview)."""

    name = "csrapproving"

    def watch(self) -> None:
        self.csrs = self.on(self.informers.of("certificates.k8s.io", "v1", "certificatesigningrequests"))
        self.nodes = self.informers.of("", "v1", "nodes")
        self.nodes.subscribe(lambda kind, new, old: self._look_at_pending())

    def _look_at_pending(self) -> None:
        for key, csr in list(self.csrs.objects.items()):
            if not is_decided(csr) and csr["spec"].get("signerName") == KUBELET_SERVING:
                self.queue.add(key)

    def plan(self, key: Key) -> Iterable[Action]:
        """Decided in `sync`, which has to ask."""
        return ()

    async def sync(self, key: Key) -> None:
        csr = self.csrs.objects.get(key)
        if csr is None or is_decided(csr):
            return
        try:
            request = request_of(csr)
        except (InvalidCSR, ValueError):
            return
        spec = csr["spec"]
        if problem_with(spec["signerName"], request, spec.get("usages") or []):
            return
        message = await self._reason(csr, request)
        if message:
            await self.informers.client.update(
                resource_path("certificates.k8s.io", "v1", "certificatesigningrequests", None, key[1], "approval"),
                approved(csr, message, self.clock()),
            )

    async def _reason(self, csr: JSON, request: CertificateRequest) -> str:
        """Why it may be approved; "" when nobody but a human can tell."""
        spec = csr["spec"]
        if spec["signerName"] == KUBELET_SERVING:
            node = self.nodes.objects.get(("", request.common_name.removeprefix(NODE_PREFIX)))
            if node is not None and serves_itself(csr, request, node):
                return "Approved: every name in the request is an address of the node that asks."
            return ""
        if spec["signerName"] != KUBELET_CLIENT:
            return ""
        attempts = ["nodeclient"]
        if spec.get("username") == request.common_name:
            attempts.insert(0, "selfnodeclient")
        for subresource in attempts:
            if await self._may(spec, subresource):
                return APPROVED_MESSAGE
        return ""

    async def _may(self, spec: JSON, subresource: str) -> bool:
        review = {
            "kind": "SubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "spec": {
                "user": spec.get("username", ""),
                "groups": spec.get("groups") or [],
                "uid": spec.get("uid", ""),
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "version": "*",
                    "subresource": subresource,
                },
            },
        }
        answer = await self.informers.client.create(
            resource_path("authorization.k8s.io", "v1", "subjectaccessreviews"), review
        )
        return bool((answer.get("status") or {}).get("allowed"))


def serves_itself(csr: JSON, request: CertificateRequest, node: JSON) -> bool:
    """The node asks for its own name, and for nothing but its own addresses."""
    spec = csr["spec"]
    own = {item["address"] for item in (node.get("status") or {}).get("addresses") or []} | {node["metadata"]["name"]}
    return (
        spec.get("username") == request.common_name
        and NODES_GROUP in (spec.get("groups") or [])
        and set(request.dns) | set(request.ips) <= own
    )


def approved(csr: JSON, message: str, now: float) -> JSON:
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": message,
        "lastUpdateTime": timestamp(now),
    }
    status = csr.get("status") or {}
    return csr | {"status": status | {"conditions": [*(status.get("conditions") or []), condition]}}


class Signer(Controller):
    """Signs what is approved with the cluster's CA."""

    name = "csrsigning"

    def __init__(
        self,
        informers: Informers,
        authority: Authority,
        clock: Callable[[], float] = time.time,
        longest: float = SIGNING_SECONDS,
        shortest: float = SHORTEST_SECONDS,
    ) -> None:
        self.authority, self.longest, self.shortest = authority, longest, shortest
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.csrs = self.on(self.informers.of("certificates.k8s.io", "v1", "certificatesigningrequests"))

    def plan(self, key: Key) -> Iterable[Action]:
        csr = self.csrs.objects.get(key)
        if csr is None or csr["spec"].get("signerName") not in SIGNERS:
            return
        status = csr.get("status") or {}
        if (
            status.get("certificate")
            or not is_true(csr, "Approved")
            or is_true(csr, "Failed")
            or is_true(csr, "Denied")
        ):
            return
        path = resource_path("certificates.k8s.io", "v1", "certificatesigningrequests", None, key[1], "status")
        yield Update(path, csr | {"status": status | self._outcome(csr)})

    def _outcome(self, csr: JSON) -> JSON:
        """The certificate, or the condition that says why there is none."""
        spec, now = csr["spec"], self.clock()
        try:
            problem = problem_with(spec["signerName"], request_of(csr), spec.get("usages") or [])
            if not problem:
                lifetime = min(max(float(spec.get("expirationSeconds") or self.longest), self.shortest), self.longest)
                pem = self.authority.sign(
                    base64.b64decode(spec["request"]),
                    spec.get("usages") or [],
                    lifetime,
                    datetime.datetime.fromtimestamp(now, datetime.UTC),
                )
                return {"certificate": base64.b64encode(pem).decode()}
        except (InvalidCSR, ValueError) as error:
            problem = str(error)
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": problem,
            "lastUpdateTime": timestamp(now),
        }
        return {"conditions": [*((csr.get("status") or {}).get("conditions") or []), failed]}


class Cleaner(Controller):
    """Deletes requests nobody will look at again."""

    name = "csrcleaner"

    def watch(self) -> None:
        self.csrs = self.on(self.informers.of("certificates.k8s.io", "v1", "certificatesigningrequests"))

    def plan(self, key: Key) -> Iterable[Action]:
        csr = self.csrs.objects.get(key)
        if csr is None:
            return
        limit = KEEP_DONE if is_decided(csr) or is_true(csr, "Failed") else KEEP_PENDING
        left = seconds(csr["metadata"].get("creationTimestamp", "")) + limit - self.clock()
        if left > 0:
            yield After(min(left, LOOK_EVERY))
        else:
            yield Delete(
                resource_path("certificates.k8s.io", "v1", "certificatesigningrequests", None, key[1]),
                csr["metadata"]["uid"],
            )
