"""The proxy's health and figures: /healthz, /livez, /metrics, /proxyMode.

My job: answers in kube-proxy's form. I own the times of the last update and of the oldest one still waiting.
Neighbours: `proxy` tells me; load balancers and Prometheus ask. Facts: `pkg/proxy/healthcheck/proxy_health.go`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from minikubelet.serviceproxy.userspace import Figures

JSON = dict[str, Any]

STALE_AFTER = 60.0  # twice upstream's syncPeriod
AUTOSCALER_TAINT = "ToBeDeletedByClusterAutoscaler"


@dataclass(slots=True)
class Health:
    """Whether rules are where the API server wants them. Lives as long as the proxy."""

    updated: float | None = None
    """Wall time of the last applied change."""
    queued: float | None = None
    """Wall time of the oldest change not applied yet."""
    syncs: int = 0
    sync_seconds: float = 0.0

    def queue(self, now: float) -> None:
        if self.queued is None:
            self.queued = now

    def applied(self, now: float, seconds: float) -> None:
        self.updated, self.queued = now, None
        self.syncs += 1
        self.sync_seconds += seconds

    def is_healthy(self, now: float) -> bool:
        return self.queued is None or now - self.queued < STALE_AFTER

    def answer(self, now: float, node: JSON | None) -> tuple[int, JSON]:
        """Status and body. With a node, whether load balancers should choose it counts too."""
        healthy = self.is_healthy(now)
        # A healthy proxy is as fresh as the question: nothing waits.
        updated = _moment(now if healthy else self.updated or 0.0)
        body: JSON = {"lastUpdated": updated, "currentTime": _moment(now)}
        fine = healthy
        if node is not None:
            body["nodeEligible"] = is_eligible(node)
            fine = healthy and body["nodeEligible"]
        body |= {"healthy": fine, "status": {"IPv4": {"lastUpdated": updated, "healthy": healthy}}}
        return (200 if fine else 503), body


def is_eligible(node: JSON) -> bool:
    """A node that is about to go gets no new connections from load balancers."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return not (node.get("metadata") or {}).get("deletionTimestamp") and all(
        taint.get("key") != AUTOSCALER_TAINT for taint in taints)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class HealthDoor:
    """Answers requests on both ports."""

    health: Health
    mode: str
    node: Callable[[], JSON]
    figures: Callable[[], Figures]
    listening: Callable[[], int]

    async def healthz(self, request: web.BaseRequest) -> web.StreamResponse:
        """The health port: what load balancers ask."""
        if request.path not in ("/healthz", "/livez"):
            return web.Response(status=404, text="404 page not found\n")
        status, body = self.health.answer(time.time(), self.node() if request.path == "/healthz" else None)
        return web.Response(status=status, body=orjson.dumps(body), content_type="application/json",
                            headers={"X-Content-Type-Options": "nosniff"})

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """The metrics port."""
        match request.path:
            case "/metrics":
                return web.Response(text=self._exposition(), content_type="text/plain")
            case "/proxyMode":
                return web.Response(text=self.mode)
            case "/healthz":
                return web.Response(text="ok")
        return web.Response(status=404, text="404 page not found\n")

    def _exposition(self) -> str:
        figures, health = self.figures(), self.health
        rows = (
            ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "gauge", health.updated or 0.0),
            ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "gauge", health.queued or 0.0),
            ("kubeproxy_sync_proxy_rules_duration_seconds_sum", "counter", health.sync_seconds),
            ("kubeproxy_sync_proxy_rules_duration_seconds_count", "counter", health.syncs),
            ("miniplane_serviceproxy_listeners", "gauge", self.listening()),
            ("miniplane_serviceproxy_connections_open", "gauge", figures.open),
            ("miniplane_serviceproxy_connections_total", "counter", figures.accepted),
            ("miniplane_serviceproxy_connections_unanswered_total", "counter", figures.unanswered),
            ("miniplane_serviceproxy_received_bytes_total", "counter", figures.bytes_in),
            ("miniplane_serviceproxy_sent_bytes_total", "counter", figures.bytes_out),
        )
        return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in rows)
