"""The webhook authorizer: somebody else decides, by SubjectAccessReview over HTTPS.

My job: ask, remember the answer for a while, and say what happens when nobody answers: no opinion, with the error. I
own the client and the memory. Rules: apiserver `plugin/pkg/authorizer/webhook`; times are kube-apiserver's defaults.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.interface import Attributes, Decision, RulesInfo, Verdict
from miniapiserver.config import Config, ConfigError
from wire.apiclient import APIError, Client
from wire.errors import WireError
from wire.kubeconfig import InvalidKubeconfig

JSON = dict[str, Any]

ALLOWED_SECONDS = 300.0
DENIED_SECONDS = 30.0
REMEMBERED = 8192
REQUEST_TIMEOUT = 30.0
RETRIES = (0.5, 0.75, 1.1)  # seconds between attempts
MAX_KEY = 10_000  # larger questions are asked anew each time


class Poster(Protocol):
    @property
    def path(self) -> str: ...

    async def create(self, path: str, body: JSON) -> JSON: ...

    async def aclose(self) -> None: ...


class _ClientPoster:
    """A kubeconfig's server URL is the whole endpoint, path included."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def path(self) -> str:
        return "" if self._client.access.prefix else "/"

    async def create(self, path: str, body: JSON) -> JSON:
        return await self._client.create(path, body)

    async def aclose(self) -> None:
        await self._client.aclose()


class Webhook:
    """Lives as long as the server; `aclose` ends its connections."""

    def __init__(self, poster: Poster, *, clock: Callable[[], float] = time.monotonic,
                 retries: tuple[float, ...] = RETRIES) -> None:
        self._poster, self._clock, self._retries = poster, clock, retries
        self._answers: OrderedDict[Hashable, tuple[float, Verdict]] = OrderedDict()

    @classmethod
    def from_config(cls, config: Config) -> "Webhook":
        """Raises ConfigError."""
        path = config.authorization_webhook_config_file
        if path is None:
            raise ConfigError("--authorization-mode=Webhook needs --authorization-webhook-config-file")
        return cls.from_kubeconfig(path)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Webhook":
        """Raises ConfigError."""
        try:
            return cls(_ClientPoster(Client.from_kubeconfig(path, user_agent="kube-apiserver")))
        except (InvalidKubeconfig, OSError) as error:
            raise ConfigError(f"--authorization-webhook-config-file: {error}") from error

    async def aclose(self) -> None:
        await self._poster.aclose()

    async def authorize(self, attributes: Attributes) -> Verdict:
        review = review_of(attributes)
        key = _key(attributes)
        known = self._answers.get(key)
        if known and known[0] > self._clock():
            return known[1]
        try:
            answer = await self._ask(review)
        except (APIError, WireError, TimeoutError, OSError) as error:
            return Verdict(Decision.NO_OPINION, "", f"webhook: {str(error) or type(error).__name__}")
        verdict = verdict_of(answer.get("status") or {})
        self._remember(key, verdict)
        return verdict

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        return RulesInfo(incomplete=True, error="webhook authorizer does not support user rule resolution")

    async def _ask(self, review: JSON) -> JSON:
        for pause in self._retries:
            try:
                return await self._once(review)
            except APIError as error:
                if error.code < 500 and error.code != 429:
                    raise
            except (WireError, TimeoutError, OSError):
                pass
            await asyncio.sleep(pause)
        return await self._once(review)

    async def _once(self, review: JSON) -> JSON:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            return await self._poster.create(self._poster.path, review)

    def _remember(self, key: Hashable, verdict: Verdict) -> None:
        if len(repr(key)) > MAX_KEY:
            return
        lifetime = ALLOWED_SECONDS if verdict.decision is Decision.ALLOW else DENIED_SECONDS
        self._answers[key] = (self._clock() + lifetime, verdict)
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)


def review_of(asked: Attributes) -> JSON:
    """The SubjectAccessReview that asks this."""
    user = asked.user
    spec: JSON = {"user": user.name, "groups": list(user.groups), "uid": user.uid,
                  "extra": {key: list(values) for key, values in user.extra.items()}}
    if asked.is_resource:
        spec["resourceAttributes"] = _filled(
            verb=asked.verb, namespace=asked.namespace, group=asked.group, version=asked.version,
            resource=asked.resource, subresource=asked.subresource, name=asked.name)
        for field, text in (("fieldSelector", asked.field_selector), ("labelSelector", asked.label_selector)):
            if text:
                spec["resourceAttributes"][field] = {"rawSelector": text}
    else:
        spec["nonResourceAttributes"] = _filled(verb=asked.verb, path=asked.path)
    return {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
            "spec": {key: value for key, value in spec.items() if value}}


def _filled(**fields: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def verdict_of(status: JSON) -> Verdict:
    """Allowed and denied at once is a contradiction, and refused (upstream: an error)."""
    reason, error = str(status.get("reason") or ""), str(status.get("evaluationError") or "")
    allowed, denied = status.get("allowed") is True, status.get("denied") is True
    if allowed and denied:
        return Verdict(Decision.DENY, reason, "webhook subject access review returned both allow and deny response")
    if denied:
        return Verdict(Decision.DENY, reason, error)
    return Verdict(Decision.ALLOW if allowed else Decision.NO_OPINION, reason, error)


def _key(asked: Attributes) -> Hashable:
    user = asked.user
    extra = tuple(sorted((key, tuple(values)) for key, values in user.extra.items()))
    return (user.name, user.uid, user.groups, extra, asked.verb, asked.is_resource, asked.namespace, asked.group,
            asked.version, asked.resource, asked.subresource, asked.name, asked.path, asked.field_selector,
            asked.label_selector)
