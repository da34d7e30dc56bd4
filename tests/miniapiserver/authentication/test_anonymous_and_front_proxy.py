"""Who may stay anonymous where, and whose word about others counts."""

from pathlib import Path
from typing import Any

import pytest
import trustme
from multidict import CIMultiDict

from certs.identity import ClientCAs
from miniapiserver.authentication import configuration, published
from miniapiserver.authentication.chain import AuthenticatorChain
from miniapiserver.authentication.interface import AuthenticationFailed, Credentials
from miniapiserver.authentication.requestheader import RequestHeaderAuthenticator, RequestHeaderNames
from miniapiserver.authentication.x509 import CertificateAuthenticator
from miniapiserver.config import Config, ConfigError

HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"


def rule(tmp_path: Path, text: str) -> configuration.AnonymousRule | None:
    path = tmp_path / "authentication.yaml"
    path.write_text(text)
    return configuration.read(path)


def test_the_file_says_where_anonymous_requests_are_allowed(tmp_path: Path) -> None:
    assert rule(tmp_path, HEAD) is None
    assert rule(tmp_path, HEAD + "anonymous: {enabled: false}") == configuration.AnonymousRule(False)
    text = HEAD + "anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}"
    assert rule(tmp_path, text) == configuration.AnonymousRule(True, frozenset({"/livez", "/readyz"}))


@pytest.mark.parametrize(("text", "why"), [
    ("kind: X", "is not apiserver.config.k8s.io/v1"), (HEAD + "anonymus: {}", 'unknown field "anonymus"'),
    (HEAD + "anonymous: {enabled: true, condition: []}", 'unknown field "anonymous.condition"'),
    (HEAD + "anonymous: {enabled: false, conditions: [{path: /livez}]}", "enabled should be set to true"),
    (HEAD + "anonymous: {enabled: 'yes'}", "not a boolean"), (HEAD + "jwt: [{}]", "jwt"), ("[", "expected"),
    (HEAD + "anonymous: {enabled: true, conditions: [{path: livez}]}", "is no path")])
def test_a_file_with_a_mistake_is_refused_at_start(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rule(tmp_path, text)


@pytest.mark.parametrize(("path", "allowed"), [("/livez", True), ("/livez/", False), ("/livez/ping", False),
                                               ("/api", False), ("/LIVEZ", False), ("/livez%2f", False)])
async def test_only_the_exact_path_is_open(path: str, allowed: bool) -> None:
    chain = AuthenticatorChain([], anonymous=True, anonymous_paths=frozenset({"/livez"}))
    if allowed:
        assert (await chain.authenticate(Credentials(None, CIMultiDict(), path))).name == "system:anonymous"
    else:
        with pytest.raises(AuthenticationFailed):
            await chain.authenticate(Credentials(None, CIMultiDict(), path))


class Proxy:
    """Two CAs: clients and front proxies; certificates as DER."""

    def __init__(self, folder: Path, allowed: tuple[str, ...] = ("front-proxy-client",)) -> None:
        self.clients, self.proxies = trustme.CA(), trustme.CA()
        for name, ca in (("clients", self.clients), ("proxies", self.proxies)):
            ca.cert_pem.write_to_path(str(folder / f"{name}.crt"))
        self.chain = AuthenticatorChain(
            [RequestHeaderAuthenticator(ClientCAs([folder / "proxies.crt"]), allowed, RequestHeaderNames()),
             CertificateAuthenticator(ClientCAs([folder / "clients.crt"]), lambda: 0.0)], anonymous=True)

    async def user(self, certificate: bytes | None, **headers: str) -> Any:
        named = CIMultiDict({key.replace("_", "-"): value for key, value in headers.items()})
        return await self.chain.authenticate(Credentials(certificate, named, "/api"))


def der(ca: trustme.CA, name: str) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(ca.issue_cert(common_name=name).cert_chain_pems[0].bytes().decode())


async def test_a_front_proxy_speaks_for_others(tmp_path: Path) -> None:
    world = Proxy(tmp_path)
    user = await world.user(der(world.proxies, "front-proxy-client"), X_Remote_User="ada", X_Remote_Group="devs",
                            X_Remote_Uid="7", X_Remote_Extra_Scopes="a%2Fb")
    assert (user.name, user.uid, user.groups) == ("ada", "7", ("devs", "system:authenticated"))


async def test_nobody_else_does(tmp_path: Path) -> None:
    """Header smuggling: the front proxy's headers from a client with no, its own, or a wrong certificate."""
    world = Proxy(tmp_path)
    smuggled = {"X_Remote_User": "admin", "X_Remote_Group": "system:masters"}
    assert (await world.user(None, **smuggled)).name == "system:anonymous"
    grace = await world.user(der(world.clients, "grace"), **smuggled)
    assert grace.name == "grace" and "system:masters" not in grace.groups
    named_alike = await world.user(der(world.clients, "front-proxy-client"), **smuggled)
    assert "system:masters" not in named_alike.groups
    with pytest.raises(AuthenticationFailed):  # the right CA, a name that is not allowed, and no client certificate
        await world.user(der(world.proxies, "somebody"), **smuggled)
    with pytest.raises(AuthenticationFailed):
        await world.user(der(trustme.CA(), "front-proxy-client"), **smuggled)


def test_extension_servers_read_whom_to_believe(tmp_path: Path) -> None:
    for name in ("clients", "proxies", "tls"):
        (tmp_path / name).write_text(f"PEM of {name}")
    config = Config(storage_path=tmp_path / "db", tls_cert_file=tmp_path / "tls", tls_private_key_file=tmp_path / "tls",
                    client_ca_file=tmp_path / "clients", requestheader_client_ca_file=tmp_path / "proxies",
                    requestheader_allowed_names=("front-proxy-client",))
    found = published.config_map(config)
    assert found["metadata"] == {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    assert found["data"] == {
        "client-ca-file": "PEM of clients", "requestheader-client-ca-file": "PEM of proxies",
        "requestheader-allowed-names": '["front-proxy-client"]', "requestheader-username-headers": '["X-Remote-User"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]', "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]'}
