"""Admission webhooks: others may change a write, and others may refuse it.

My job: MutatingAdmissionWebhook (one after the other, each sees what those before it did) and
ValidatingAdmissionWebhook (all at once); what an answer means, and what no answer means. Upstream:
apiserver `admission/plugin/webhook/{mutating,validating}`.
"""

import asyncio
import logging
import uuid
from typing import Any

from miniapiserver.admission import review
from miniapiserver.admission.interface import Attributes, Plugin
from miniapiserver.admission.webhookclient import CallFailed, WebhookClient
from miniapiserver.admission.webhookrules import GROUP, Matcher, Webhook, webhooks_of
from miniapiserver.errors import APIError, BadRequest, InternalError
from miniapiserver.patch import jsonpatch
from miniapiserver.patch.document import copy
from miniapiserver.registry.objects import Objects
from miniapiserver.resources.resource import Resource

JSON = dict[str, Any]

MUTATING, VALIDATING = f"mutatingwebhookconfigurations.{GROUP}", f"validatingwebhookconfigurations.{GROUP}"

log = logging.getLogger("webhook")


class Webhooks:
    """What both plugins share. Lives as long as the server."""

    def __init__(self, objects: Objects, matcher: Matcher, client: WebhookClient) -> None:
        self._objects, self._matcher, self._client = objects, matcher, client

    def wanting(self, storage: str, asked: Attributes) -> list[tuple[Webhook, Resource]]:
        """The webhooks that want to see this write. Raises BadRequest for a dry run that would not be dry."""
        configurations = list(self._objects.list(storage))
        found = [(webhook, row) for webhook in webhooks_of(configurations)
                 if (row := self._matcher.match(webhook, asked)) is not None]
        for webhook, _ in found if asked.dry_run else ():
            if webhook.has_side_effects:
                raise BadRequest(f"admission webhook {webhook.name!r} does not support dry run".replace("'", '"'))
        return found

    async def ask(self, webhook: Webhook, row: Resource, asked: Attributes) -> review.Answer | None:
        """None when it could not answer and its policy is to go on without. Raises InternalError, review.Denied."""
        uid = str(uuid.uuid4())
        try:
            if webhook.body.get("matchConditions"):
                raise CallFailed("matchConditions: CEL expressions are not evaluated here")
            answer = review.answer(await self._client.post(webhook, review.question(asked, row, uid)), uid)
        except (CallFailed, review.InvalidReview) as error:
            log.warning('webhook.failed name=%s policy=%s error="%s"', webhook.name,
                        webhook.body.get("failurePolicy"), error)
            if webhook.may_fail:
                return None
            raise InternalError.because(f'failed calling webhook "{webhook.name}": {error}') from error
        asked.warnings.extend(answer.warnings)
        if not answer.allowed:
            raise review.Denied(webhook.name, answer.status)
        return answer


class MutatingAdmissionWebhook(Plugin):
    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def admit(self, attributes: Attributes) -> None:
        wanting = self._webhooks.wanting(MUTATING, attributes)
        asked_before: list[tuple[Webhook, Resource]] = []
        again: dict[str, tuple[Webhook, Resource]] = {}
        for webhook, row in wanting:
            if await self._change(webhook, row, attributes):
                again |= {_identity(item[0]): item for item in asked_before if _wants_again(item[0])}
            asked_before.append((webhook, row))
        for webhook, row in again.values():  # once more, whatever comes of it: upstream's promise is one reinvocation
            await self._change(webhook, row, attributes)

    async def _change(self, webhook: Webhook, row: Resource, attributes: Attributes) -> bool:
        """Whether the webhook changed the object."""
        answer = await self._webhooks.ask(webhook, row, attributes)
        if answer is None or not answer.patch or attributes.obj is None:
            return False
        shown = review.question(attributes, row, "")["request"]["object"]
        try:
            changed = jsonpatch.apply(copy(shown), answer.patch)
            if not isinstance(changed, dict) or not isinstance(changed.get("metadata"), dict):
                raise ValueError("what is left is no object")
        except (APIError, ValueError, TypeError) as error:
            raise InternalError.because(f'failed applying the patch of webhook "{webhook.name}": {error}') from error
        result = review.patched(attributes, row, changed)
        attributes.row.strategy.default(result)
        before = copy(attributes.obj)
        _become(attributes.obj, result)
        return bool(before != attributes.obj)


class ValidatingAdmissionWebhook(Plugin):
    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def validate(self, attributes: Attributes) -> None:
        wanting = self._webhooks.wanting(VALIDATING, attributes)
        if not wanting:
            return
        outcomes = await asyncio.gather(*(self._webhooks.ask(webhook, row, attributes) for webhook, row in wanting),
                                        return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


def _identity(webhook: Webhook) -> str:
    return f"{webhook.configuration}/{webhook.name}"


def _wants_again(webhook: Webhook) -> bool:
    return webhook.body.get("reinvocationPolicy") == "IfNeeded"


def _become(obj: JSON, result: JSON) -> None:
    """In place, its metadata too: others hold on to both."""
    metadata = obj["metadata"]
    fresh = result["metadata"]
    metadata.clear()
    metadata.update(fresh)
    obj.clear()
    obj.update(result)
    obj["metadata"] = metadata
