"""The audit log: one JSON line per stage of a request (audit.k8s.io/v1 Event).

My job: the policy (first matching rule), the event's form, and lines on disk without ever holding up a request: a
bounded queue and one writer thread. A full queue drops the line and counts it. The filters start and finish events.
"""

import contextlib
import enum
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import yaml

from miniapiserver.auditevent import AuditEvent, Level
from miniapiserver.config import ConfigError
from miniapiserver.request import Request

JSON = dict[str, Any]

QUEUED_LINES = 10_000
log = logging.getLogger("audit")


class Stage(enum.Enum):
    RECEIVED = "RequestReceived"
    STARTED = "ResponseStarted"
    COMPLETE = "ResponseComplete"
    PANIC = "Panic"


@dataclass(frozen=True, slots=True)
class Rule:
    """Empty tuples match everything. `resources` holds (group, resource patterns)."""

    level: Level
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[tuple[str, tuple[str, ...]], ...] = ()
    namespaces: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def matches(self, request: Request) -> bool:
        info, user = request.info, request.user
        if self.users and user.name not in self.users:
            return False
        if self.groups and not set(self.groups) & set(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces and (not info.is_resource or info.namespace not in self.namespaces):
            return False
        if self.urls:
            return not info.is_resource and any(_url_matches(pattern, info.path) for pattern in self.urls)
        if self.resources:
            return info.is_resource and any(_resource_matches(group, names, request) for group, names in self.resources)
        return True


def _url_matches(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _resource_matches(group: str, names: tuple[str, ...], request: Request) -> bool:
    info = request.info
    combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    wanted = (combined, "*", f"*/{info.subresource}" if info.subresource else "*", f"{info.resource}/*")
    return group == info.group and (not names or any(name in wanted for name in names))


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...] = (Rule(Level.METADATA),)
    omit_stages: frozenset[str] = frozenset({Stage.RECEIVED.value})

    def level(self, request: Request) -> Level:
        return next((rule.level for rule in self.rules if rule.matches(request)), Level.NONE)

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Raises ConfigError."""
        try:
            body = yaml.safe_load(path.read_text())
            if body.get("kind") != "Policy" or not str(body.get("apiVersion", "")).startswith("audit.k8s.io/"):
                raise ConfigError(f"--audit-policy-file {path}: not an audit.k8s.io Policy")
            rules = tuple(_rule(rule) for rule in body.get("rules") or [])
            return cls(rules, frozenset(body.get("omitStages") or []))
        except (yaml.YAMLError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise ConfigError(f"--audit-policy-file {path}: {error}") from error


def _rule(rule: Mapping[str, Any]) -> Rule:
    resources = tuple((item.get("group", ""), tuple(item.get("resources") or ()))
                      for item in rule.get("resources") or [])
    return Rule(Level(rule["level"]), tuple(rule.get("users") or ()), tuple(rule.get("userGroups") or ()),
                tuple(rule.get("verbs") or ()), resources, tuple(rule.get("namespaces") or ()),
                tuple(rule.get("nonResourceURLs") or ()))


class AuditLog:
    """Lives as long as the server; `close` writes what is queued."""

    def __init__(self, path: str, policy: Policy) -> None:
        self._policy = policy
        self.dropped = 0
        self._is_ours = path != "-"
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUED_LINES)
        try:
            # Unbuffered: what a full disk refused must not come again with the next line.
            self._file: IO[bytes] = sys.stdout.buffer if path == "-" else open(path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"--audit-log-path {path}: {error.strerror}") from error
        self._writer = threading.Thread(target=self._write, name="audit log", daemon=True)
        self._writer.start()

    def begin(self, request: Request) -> None:
        level = self._policy.level(request)
        if level is not Level.NONE:
            request.audit = AuditEvent(level)
            self.record(request, Stage.RECEIVED, 0)

    def record(self, request: Request, stage: Stage, code: int) -> None:
        if request.audit is None or stage.value in self._policy.omit_stages:
            return
        try:
            self._lines.put_nowait(orjson.dumps(event(request, request.audit, stage, code), default=str))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        self._lines.put(None)
        self._writer.join(timeout=5)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            batch = [line]
            while not self._lines.empty() and len(batch) < 512:
                following = self._lines.get()
                if following is None:
                    self._lines.put(None)
                    break
                batch.append(following)
            self._put(batch)
        if self._is_ours:
            with contextlib.suppress(OSError):  # what could not be written is counted already
                self._file.close()

    def _put(self, batch: list[bytes]) -> None:
        """A full disk costs these lines, not the log: there may be room again for the next ones."""
        try:
            self._file.write(b"".join(item + b"\n" for item in batch))
            self._file.flush()
        except OSError as error:
            if not self.dropped:
                log.error('audit.dropped lines=%d reason="%s"', len(batch), error)
            self.dropped += len(batch)


def event(request: Request, entry: AuditEvent, stage: Stage, code: int) -> JSON:
    """The `audit.k8s.io/v1 Event` of one stage."""
    info, http = request.info, request.http
    body: JSON = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": entry.level.value,
                  "auditID": request.audit_id, "stage": stage.value, "requestURI": http.raw_path, "verb": info.verb,
                  "user": (request.impersonator or request.user).as_json(), "sourceIPs": [http.remote or ""],
                  "userAgent": request.user_agent}
    if request.impersonator is not None:
        body["impersonatedUser"] = request.user.as_json()
    if info.is_resource:
        body["objectRef"] = {key: value for key, value in (
            ("resource", info.resource), ("namespace", info.namespace), ("name", info.name),
            ("apiGroup", info.group), ("apiVersion", info.version), ("subresource", info.subresource)) if value}
    if stage is not Stage.RECEIVED:
        body["responseStatus"] = {"metadata": {}, "code": code}
    if entry.level in (Level.REQUEST, Level.REQUEST_RESPONSE) and entry.request_object is not None:
        body["requestObject"] = entry.request_object
    if entry.level is Level.REQUEST_RESPONSE and entry.response_object is not None:
        body["responseObject"] = entry.response_object
    body["requestReceivedTimestamp"] = _micro(request.started)
    body["stageTimestamp"] = _micro(time.time())
    if request.annotations:
        body["annotations"] = request.annotations
    return body


def _micro(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"
