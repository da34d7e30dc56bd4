"""Bearer tokens that are not what they say, each beside one that is."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from certs.jwt import TokenSigner, TokenVerifier
from certs.requests import new_key
from miniapiserver.authentication.bearertoken import AudienceAgnostic, BearerTokenAuthenticator
from miniapiserver.authentication.bootstraptoken import BootstrapTokenAuthenticator
from miniapiserver.authentication.interface import AuthenticationFailed, Credentials, UserInfo
from miniapiserver.authentication.serviceaccount import BoundObject, ServiceAccountAuthenticator, claims_for
from miniapiserver.authentication.tokenfile import TokenFileAuthenticator

JSON = dict[str, Any]
NOW = 1_700_000_000
ISSUER = "https://kubernetes.default.svc"
ACCOUNT = {"metadata": {"name": "robot", "namespace": "ns", "uid": "u1"}}
POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u2"}}


class Stored:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], JSON] = {
            ("serviceaccounts", "ns", "robot"): ACCOUNT, ("pods", "ns", "p"): POD}

    def get(self, storage: str, namespace: str, name: str) -> JSON | None:
        return self.objects.get((storage, namespace, name))

    def list(self, storage: str, namespace: str = "") -> Iterable[JSON]:
        return ()

    async def appears(self, storage: str, namespace: str, name: str, seconds: float) -> JSON | None:
        return None


class World:
    """A key, a store and a clock that stands still unless moved."""

    def __init__(self, folder: Path) -> None:
        self.now, self.stored, self.key = float(NOW), Stored(), folder / "sa.key"
        self.key.write_bytes(new_key())
        self.signer = TokenSigner(self.key)
        accounts = ServiceAccountAuthenticator(TokenVerifier([self.key]), (ISSUER,), self.stored, lambda: self.now,
                                               (ISSUER,))
        bootstrap = BootstrapTokenAuthenticator(self.stored, lambda: self.now)
        file = AudienceAgnostic(TokenFileAuthenticator({"letmein": UserInfo("ada")}), (ISSUER,))
        self.bearer = BearerTokenAuthenticator([file, accounts, bootstrap], (ISSUER,), lambda: self.now)

    def claims(self, seconds: int = 600, audiences: tuple[str, ...] = (ISSUER,), **more: Any) -> JSON:
        bound = BoundObject("pod", "p", "u2")
        return claims_for(ACCOUNT, issuer=ISSUER, audiences=audiences, api_audiences=(ISSUER,), seconds=seconds,
                          bound=bound, now=NOW, token_id="j").claims | more

    async def user(self, token: str) -> str:
        self.bearer.forget()
        user = await self.bearer.authenticate(Credentials(None, CIMultiDict({"Authorization": f"Bearer {token}"}), "/"))
        return user.name if user else ""

    async def refused(self, token: str) -> str:
        self.bearer.forget()
        with pytest.raises(AuthenticationFailed) as error:
            await self.user(token)
        return str(error.value)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def encode(part: JSON | bytes) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_token_we_signed_names_its_account(world: World) -> None:
    assert await world.user(world.signer.sign(world.claims())) == "system:serviceaccount:ns:robot"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_an_unsigned_token_is_refused(world: World, algorithm: str) -> None:
    unsigned = f"{encode({'alg': algorithm, 'typ': 'JWT'})}.{encode(world.claims())}."
    assert "service account token" in await world.refused(unsigned)


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(world: World) -> None:
    kid = json.loads(base64.urlsafe_b64decode(world.signer.sign({}).split(".")[0] + "=="))["kid"]
    public = json.dumps(TokenVerifier([world.key]).jwks()["keys"][0]).encode()
    for secret in (public, world.key.read_bytes(), b""):
        signed = f"{encode({'alg': 'HS256', 'kid': kid})}.{encode(world.claims())}"
        forged = f"{signed}.{encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
        await world.refused(forged)


async def test_a_token_of_somebody_elses_key_is_refused_whatever_key_it_claims(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(new_key())
    theirs = TokenSigner(other).sign(world.claims())
    await world.refused(theirs)
    ours = world.signer.sign(world.claims())
    await world.refused(".".join([ours.split(".")[0], *theirs.split(".")[1:]]))


async def test_changed_claims_are_refused(world: World) -> None:
    head, _, signature = world.signer.sign(world.claims()).split(".")
    await world.refused(f"{head}.{encode(world.claims(sub='system:serviceaccount:kube-system:boss'))}.{signature}")


@pytest.mark.parametrize("size", [20_000, 70_000, 1_000_000])
async def test_an_oversized_token_is_refused_without_reading_it(world: World, size: int) -> None:
    long = world.signer.sign(world.claims(padding="x" * size))
    await world.refused(long)
    await world.user(world.signer.sign(world.claims(padding="x" * 2000)))


@pytest.mark.parametrize("token", ["..", "a.b.c", "é.é.é", "eyJhbGciOiJSUzI1NiJ9.e30.", ". .", "null.null.null",
                                   "W10.W10.W10", "eyJhbGciOiJSUzI1NiIsImNyaXQiOlsieCJdfQ.e30.AA"])
async def test_garbage_is_refused(world: World, token: str) -> None:
    await world.refused(token)


async def test_a_token_for_another_audience_is_refused(world: World) -> None:
    assert "audiences" in await world.refused(world.signer.sign(world.claims(audiences=("vault",))))
    assert await world.user(world.signer.sign(world.claims(audiences=("vault", ISSUER))))


async def test_a_token_of_another_issuer_is_refused(world: World) -> None:
    await world.refused(world.signer.sign(world.claims(iss="https://evil.example")))


async def test_an_expired_token_is_refused_after_a_minutes_leeway(world: World) -> None:
    token = world.signer.sign(world.claims(seconds=600))
    world.now = NOW + 659.0
    assert await world.user(token)
    world.now = NOW + 661.0
    assert await world.refused(token) == "service account token has expired"


async def test_a_token_of_the_future_is_refused(world: World) -> None:
    token = world.signer.sign(world.claims(nbf=NOW + 120))
    assert "not valid yet" in await world.refused(token)


@pytest.mark.parametrize(("storage", "name"), [("pods", "p"), ("serviceaccounts", "robot")])
async def test_a_token_dies_with_what_it_is_bound_to(world: World, storage: str, name: str) -> None:
    token = world.signer.sign(world.claims())
    assert await world.user(token)
    found = world.stored.objects.pop((storage, "ns", name))
    assert "invalidated" in await world.refused(token)
    world.stored.objects[storage, "ns", name] = {"metadata": found["metadata"] | {"uid": "another"}}
    assert "invalidated" in await world.refused(token)  # replayed against a namesake
    world.stored.objects[storage, "ns", name] = found
    assert await world.user(token)


async def test_an_account_being_deleted_keeps_its_tokens_for_a_minute(world: World) -> None:
    token = world.signer.sign(world.claims(seconds=3600))
    metadata = ACCOUNT["metadata"] | {"deletionTimestamp": "2023-11-14T22:13:20Z"}  # NOW
    world.stored.objects["serviceaccounts", "ns", "robot"] = {"metadata": metadata}
    world.now = NOW + 59.0
    assert await world.user(token)
    world.now = NOW + 61.0
    assert "invalidated" in await world.refused(token)


async def test_a_token_file_is_for_the_api_server_only(world: World) -> None:
    assert (await world.bearer.authenticate_token("letmein", (ISSUER, "vault"))).name == "ada"
    assert world.bearer.granted_audiences("letmein", (ISSUER, "vault")) == (ISSUER,)
    with pytest.raises(AuthenticationFailed):
        await world.bearer.authenticate_token("letmein", ("vault",))


async def test_a_review_names_the_audiences_both_sides_know(world: World) -> None:
    token = world.signer.sign(world.claims(audiences=("vault", "bank")))
    assert (await world.bearer.authenticate_token(token, ("vault", "post"))).name
    assert world.bearer.granted_audiences(token, ("vault", "post")) == ("vault",)
    with pytest.raises(AuthenticationFailed):
        await world.bearer.authenticate_token(token, ("post",))


def bootstrap(**changes: str) -> JSON:
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"} | changes
    return {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value}}


@pytest.mark.parametrize(("changes", "why"), [
    ({}, ""), ({"expiration": "2099-01-01T00:00:00Z"}, ""),
    ({"expiration": "2020-01-01T00:00:00Z"}, "expired"), ({"expiration": "soon"}, "expired"),
    ({"usage-bootstrap-authentication": ""}, "not meant for authentication"),
    ({"usage-bootstrap-authentication": "yes"}, "not meant for authentication"),
    ({"token-secret": "ffffffffffffffff"}, "wrong secret"), ({"token-secret": "é"}, "wrong secret"),
    ({"token-id": "fedcba"}, "token-id differs"), ({"auth-extra-groups": "system:masters"}, "malformed group")])
async def test_a_bootstrap_token_is_as_good_as_its_secret(world: World, changes: dict[str, str], why: str) -> None:
    world.stored.objects["secrets", "kube-system", "bootstrap-token-abcdef"] = bootstrap(**changes)
    token = "abcdef.0123456789abcdef"
    if why:
        assert why in await world.refused(token)
    else:
        assert await world.user(token) == "system:bootstrap:abcdef"
