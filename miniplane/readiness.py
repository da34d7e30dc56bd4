"""Is the cluster ready? Asked as a user would: through the API server, down to a pod's log line.

My job: the questions, in order, and the waiting between them. I own one probe pod for as long as I ask. Ready means
`/readyz` is ok, every node is Ready and has renewed its lease since the start, and a line a container wrote has come
back through API server and kubelet.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from miniplane.apiclient import APIClient, Unreachable
from miniplane.errors import StartError

PROBE_NAMESPACE: Final = "kube-system"
PROBE_LABEL: Final = "miniplane.io/probe"
# Long enough not to burn a core that the starting programs need, short enough not to be noticed.
POLL_SECONDS: Final = 0.03

Report = Callable[[str], None]


@dataclass(slots=True)
class ReadinessCheck:
    """One wait for one cluster."""

    client: APIClient
    node_names: list[str]
    started: float
    deadline: float
    report: Report
    # Called between questions; raises StartError when waiting has become pointless.
    look_after: Callable[[], None]
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))

    def wait(self) -> None:
        """Raises StartError at the deadline, saying what was missing."""
        self._until(self._is_api_ready, "the API server's /readyz")
        self.report(f"API server ready on https://{self.client.host}:{self.client.port}")
        if not self.node_names:
            return
        try:
            self._until(self._has_probe_pod, "a probe pod to be accepted")
            self._until(self._are_nodes_ready, f"nodes to be Ready: {', '.join(self.node_names)}")
            self.report(f"{_count(len(self.node_names), 'node')} Ready: {_some(self.node_names)}")
            self._until(self._has_log_line, "a pod's log line")
            self.report("a pod's log line came back through API server and kubelet")
        finally:
            self._remove_probe_pods()

    def _until(self, question: Callable[[], str], what: str) -> None:
        """`question` answers with what is missing, or nothing."""
        while missing := self._ask(question):
            if time.time() > self.deadline:
                raise StartError(f"waited in vain for {what}: {missing}")
            self.look_after()
            time.sleep(POLL_SECONDS)

    def _ask(self, question: Callable[[], str]) -> str:
        try:
            return question()
        except Unreachable as error:
            return str(error)

    def _is_api_ready(self) -> str:
        answer = self.client.get("/readyz")
        return "" if answer.status == 200 else f"{answer.status} {_short(answer.body)}"

    def _has_probe_pod(self) -> str:
        path = f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods"
        answer = self.client.request("POST", path, probe_pod(self._pod_name, self.nonce))
        return "" if answer.status in (201, 409) else f"{answer.status} {_short(answer.body)}"

    def _are_nodes_ready(self) -> str:
        nodes = self.client.get("/api/v1/nodes").json()
        leases = self.client.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").json()
        ready = ready_nodes(nodes, leases, self.started)
        return ", ".join(name for name in self.node_names if name not in ready)

    def _has_log_line(self) -> str:
        answer = self.client.get(f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods/{self._pod_name}/log")
        if answer.status == 200 and self.nonce.encode() in answer.body:
            return ""
        return f"{answer.status} {_short(answer.body)}" if answer.status != 200 else "the log is empty yet"

    def _remove_probe_pods(self) -> None:
        """Those that an interrupted wait left behind, too."""
        path = f"/api/v1/namespaces/{PROBE_NAMESPACE}/pods?labelSelector={PROBE_LABEL}&gracePeriodSeconds=0"
        self._ask(lambda: str(self.client.request("DELETE", path).status))

    @property
    def _pod_name(self) -> str:
        return f"miniplane-probe-{self.nonce}"


def probe_pod(name: str, line: str) -> dict[str, Any]:
    container = {"name": "probe", "image": "miniplane/probe", "command": ["/bin/echo", line]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {PROBE_LABEL: "true"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def ready_nodes(nodes: dict[str, Any], leases: dict[str, Any], since: float) -> set[str]:
    """Nodes whose Ready condition is True and whose lease is younger than `since`.

    After a restart the stored Node still says Ready; only the lease tells that its kubelet is back.
    """
    renewed = {
        lease["metadata"]["name"]
        for lease in leases.get("items") or []
        if _seconds((lease.get("spec") or {}).get("renewTime")) >= since
    }
    return {node["metadata"]["name"] for node in nodes.get("items") or [] if is_ready(node)} & renewed


def is_ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def _seconds(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _short(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    return text if len(text) <= 200 else f"{text[:200]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:3])} … {names[-1]}"
