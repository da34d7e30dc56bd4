"""The webhook authorizer, against a fake and against a real HTTPS server."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
import yaml
from aiohttp import web

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.interface import Attributes, Decision, Verdict
from miniapiserver.authorization.webhook import Webhook, review_of, verdict_of
from miniapiserver.config import ConfigError
from wire.apiclient import APIError

JSON = dict[str, Any]
ASKED = Attributes(UserInfo("ada", "1", ("staff",), {"k": ("v",)}), "list", True, "here", "apps", "v1", "deployments",
                   "status", "d", "", "metadata.name=d", "a=b")


class Fake:
    path = ""

    def __init__(self, *answers: JSON | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[JSON] = []

    async def create(self, path: str, body: JSON) -> JSON:
        self.asked.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    async def aclose(self) -> None:
        pass


def test_the_question_is_a_subject_access_review() -> None:
    assert review_of(ASKED) == {
        "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
        "spec": {"user": "ada", "uid": "1", "groups": ["staff"], "extra": {"k": ["v"]}, "resourceAttributes": {
            "verb": "list", "namespace": "here", "group": "apps", "version": "v1", "resource": "deployments",
            "subresource": "status", "name": "d", "fieldSelector": {"rawSelector": "metadata.name=d"},
            "labelSelector": {"rawSelector": "a=b"}}}}
    path = Attributes(UserInfo("ada"), "get", is_resource=False, path="/x")
    assert review_of(path)["spec"] == {"user": "ada", "nonResourceAttributes": {"verb": "get", "path": "/x"}}


@pytest.mark.parametrize(("status", "decision"), [
    ({"allowed": True}, Decision.ALLOW), ({"allowed": False}, Decision.NO_OPINION), ({}, Decision.NO_OPINION),
    ({"denied": True}, Decision.DENY), ({"allowed": True, "denied": True}, Decision.DENY),
    ({"allowed": "true"}, Decision.NO_OPINION)])
def test_only_a_clear_yes_allows(status: JSON, decision: Decision) -> None:
    assert verdict_of(status).decision is decision


async def test_a_yes_is_remembered_longer_than_a_no() -> None:
    time = [0.0]
    fake = Fake({"allowed": True}, {"allowed": False}, {"allowed": False}, {"allowed": True})
    webhook = Webhook(fake, clock=lambda: time[0], retries=())
    other = Attributes(UserInfo("eve"), "get", resource="pods")

    async def ask(at: float) -> tuple[Decision, Decision, int]:
        time[0] = at
        yes, no = await webhook.authorize(ASKED), await webhook.authorize(other)
        return yes.decision, no.decision, len(fake.asked)

    assert await ask(0.0) == (Decision.ALLOW, Decision.NO_OPINION, 2)
    assert await ask(29.0) == (Decision.ALLOW, Decision.NO_OPINION, 2)
    assert await ask(31.0) == (Decision.ALLOW, Decision.NO_OPINION, 3)
    time[0] = 301.0
    assert (await webhook.authorize(ASKED)).decision is Decision.ALLOW
    assert len(fake.asked) == 4


async def test_a_webhook_that_fails_has_no_opinion_and_is_asked_again() -> None:
    fake = Fake(APIError({"code": 500, "message": "boom"}), OSError("down"), {"allowed": True})
    webhook = Webhook(fake, retries=())
    first = await webhook.authorize(ASKED)
    assert (first.decision, "boom" in first.error) == (Decision.NO_OPINION, True)
    assert (await webhook.authorize(ASKED)).error == "webhook: down"
    assert (await webhook.authorize(ASKED)).decision is Decision.ALLOW


async def test_server_errors_are_retried_and_refusals_are_not() -> None:
    fake = Fake(APIError({"code": 503}), {"allowed": True})
    assert (await Webhook(fake, retries=(0.0,)).authorize(ASKED)).decision is Decision.ALLOW
    fake = Fake(APIError({"code": 403}), {"allowed": True})
    assert (await Webhook(fake, retries=(0.0,)).authorize(ASKED)).decision is Decision.NO_OPINION


Make = Callable[[str, Path], Path]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Make:
    def make(server: str, ca: Path) -> Path:
        path = tmp_path / "webhook.conf"
        path.write_text(yaml.safe_dump({
            "kind": "Config", "apiVersion": "v1", "current-context": "w",
            "contexts": [{"name": "w", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(ca)}}],
            "users": [{"name": "u", "user": {"token": "secret"}}]}))
        return path

    return make


async def test_over_tls_and_its_twin_with_a_foreign_ca(tmp_path: Path, kubeconfig: Make) -> None:
    ca, seen = trustme.CA(), []

    async def decide(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        seen.append((request.path, request.headers["Authorization"], body["spec"]["user"]))
        return web.json_response(body | {"status": {"allowed": True, "reason": "friend"}})

    app = web.Application()
    app.router.add_post("/authorize", decide)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        for name, authority in (("good.crt", ca), ("foreign.crt", trustme.CA())):
            (tmp_path / name).write_bytes(authority.cert_pem.bytes())
            config = kubeconfig(f"https://127.0.0.1:{port}/authorize", tmp_path / name)
            webhook = Webhook.from_kubeconfig(config)
            webhook._retries = ()
            verdict = await webhook.authorize(ASKED)
            await webhook.aclose()
            if name == "good.crt":
                assert verdict == Verdict(Decision.ALLOW, "friend")
            else:
                assert verdict.decision is Decision.NO_OPINION
                assert "certificate" in verdict.error.lower()
    finally:
        await runner.cleanup()
    assert seen == [("/authorize", "Bearer secret", "ada")]


def test_a_configuration_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--authorization-webhook-config-file"):
        Webhook.from_kubeconfig(tmp_path / "missing")
