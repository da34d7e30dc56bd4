"""The composition root: a Config becomes a running API server.

My job: build every part once, in dependency order, start and end them. Nothing else knows how the parts fit together.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from certs.identity import ClientCAs
from certs.jwt import TokenSigner, TokenVerifier
from miniapiserver.admission.certificates import request_problem
from miniapiserver.admission.chain import AdmissionChain
from miniapiserver.admission.plugins import Ingredients, plugins
from miniapiserver.admission.rbac import Escalation
from miniapiserver.admission.webhookclient import WebhookClient
from miniapiserver.admission.webhookrules import Matcher
from miniapiserver.admission.webhooks import MUTATING, VALIDATING, Webhooks
from miniapiserver.apiserver import APIServer
from miniapiserver.audit import AuditLog, Policy
from miniapiserver.authentication import configuration
from miniapiserver.authentication.bearertoken import AudienceAgnostic, BearerTokenAuthenticator
from miniapiserver.authentication.bootstraptoken import BootstrapTokenAuthenticator
from miniapiserver.authentication.chain import AuthenticatorChain
from miniapiserver.authentication.interface import Authenticator, TokenAuthenticator
from miniapiserver.authentication.requestheader import RequestHeaderAuthenticator, RequestHeaderNames
from miniapiserver.authentication.serviceaccount import ServiceAccountAuthenticator
from miniapiserver.authentication.tokenfile import TokenFileAuthenticator
from miniapiserver.authentication.unsecured import ADDRESS, UnsecuredAuthenticator
from miniapiserver.authentication.x509 import CertificateAuthenticator
from miniapiserver.authorization.chain import authorizer_chain, escalation_check
from miniapiserver.bootstrap import Bootstrap
from miniapiserver.config import Config, ConfigError, node_ports
from miniapiserver.endpoints.dispatch import Dispatch
from miniapiserver.endpoints.health import Check, Health
from miniapiserver.endpoints.nodestreams import NodeStreams, egress_selector
from miniapiserver.endpoints.pages import Pages
from miniapiserver.endpoints.reviews import Reviews
from miniapiserver.endpoints.subresources import Subresources
from miniapiserver.filters import Filters, Guards
from miniapiserver.metrics import Metrics
from miniapiserver.registry.addresses import IPAddresses
from miniapiserver.registry.allocation import ServiceAllocator
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.tokens import TokenIssuer
from miniapiserver.requestinfo import RequestInfo
from miniapiserver.resources.resource import TypeTable
from miniapiserver.resources.rows import all_rows
from miniapiserver.storage.compactor import Compactor
from miniapiserver.storage.interface import Storage, StorageError
from miniapiserver.watchcache import WatchCaches
from wire import tls
from wire.http import HTTPServer

log = logging.getLogger("apiserver")

#: Read by the health checks; whether it exists does not matter (upstream reads `health` from etcd).
HEALTH_KEY = "/health"
STORAGE_CHECK_TIMEOUT = 2.0  # upstream's --etcd-healthcheck-timeout

#: Read without waiting by authentication, authorization and admission, so loaded before the first request.
EARLY = ("namespaces", "serviceaccounts", "secrets", "pods", "nodes", "clusterroles.rbac.authorization.k8s.io",
         "clusterrolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io",
         "rolebindings.rbac.authorization.k8s.io", "priorityclasses.scheduling.k8s.io", "services", "endpoints",
         "limitranges", "resourcequotas", "storageclasses.storage.k8s.io", MUTATING, VALIDATING)


@dataclass(frozen=True, slots=True)
class Running:
    """`unsecured` is the same server for the insecure port, where everybody is everybody."""

    server: APIServer
    filters: Filters
    unsecured: Filters
    bootstrap: Bootstrap
    compactor: Compactor


def storage_of(config: Config) -> Storage:
    """The engine the flags name. The import is late: only one of the two is ever needed."""
    if config.storage_path is not None:
        from miniapiserver.storage.sqlite import SQLiteStorage

        return SQLiteStorage(config.storage_path)
    from miniapiserver.storage.etcd import EtcdStorage

    uses_tls = any(url.startswith("https://") for url in config.etcd_servers)
    context = tls.client_context(config.etcd_cafile, config.etcd_certfile, config.etcd_keyfile) if uses_tls else None
    return EtcdStorage(config.etcd_servers, context)


@asynccontextmanager
async def running(config: Config, clock: Clock) -> AsyncIterator[Running]:
    """Everything but the listeners."""
    async with storage_of(config) as storage, WatchCaches(storage) as caches:
        table = TypeTable(all_rows(config.exempt_networks, request_problem))
        registry = Registry(table, caches)
        await registry.start(EARLY)
        async with contextlib.AsyncExitStack() as stack:
            yield await _assemble(config, clock, table, registry, stack, Compactor(storage))


async def _assemble(config: Config, clock: Clock, table: TypeTable, registry: Registry,
                    stack: contextlib.AsyncExitStack, compactor: Compactor) -> Running:
    services = ServiceAllocator(config.service_cluster_ip_range, node_ports(config.service_node_port_range),
                                IPAddresses(registry, clock), registry)
    registry.allocate("services", services)
    authorizer = authorizer_chain(config, registry)
    stack.push_async_callback(authorizer.aclose)
    bearer = BearerTokenAuthenticator(_token_authenticators(config, registry, clock), config.audiences, time.monotonic)
    issuer = None
    if config.service_account_signing_key_file is not None:
        issuer = TokenIssuer(TokenSigner(config.service_account_signing_key_file), config.service_account_issuer[0],
                             config.audiences, registry, clock)
    audit = AuditLog(config.audit_log_path, Policy.read(config.audit_policy_file) if config.audit_policy_file
                     else Policy()) if config.audit_log_path else None
    if audit is not None:
        stack.callback(audit.close)
    caller = WebhookClient(registry, egress_selector(config))
    stack.push_async_callback(caller.aclose)
    has = Ingredients(registry, authorizer, Webhooks(registry, Matcher(registry, table), caller))
    # Quotas come last among the plugins: what others refuse costs nothing.
    checks = [Escalation(escalation_check(authorizer, registry)), *plugins(config, has)]
    server = APIServer(config, table, registry, AdmissionChain(checks), authorizer, bearer,
                       issuer, Health(), Metrics(), audit, clock)
    streams = await stack.enter_async_context(NodeStreams.build(server))
    caller.ledger = streams.ledger
    bootstrap = Bootstrap(server, services)
    server.health.add(Check("etcd", lambda: reachable(registry.storage)))
    server.health.add(Check("informer-sync",
                            lambda: "" if registry.follows_storage else "the watch of the storage is down"),
                      ready_only=True)
    server.health.add(Check("poststarthook/start-apiserver-admission-initializer", lambda: ""), ready_only=True)
    server.health.add(Check("poststarthook/rbac/bootstrap-roles",
                            lambda: "" if bootstrap.done else "not finished"), ready_only=True)
    dispatch = Dispatch(server, Pages(server, _token_keys(config)), Subresources(server, streams, Reviews(server)))
    guards = Guards(_authenticators(config, bearer), authorizer, server.metrics, audit, config.request_timeout,
                    _audit_ids().__next__, lambda info: is_served(table, info))
    everybody = replace(guards, authenticator=AuthenticatorChain([UnsecuredAuthenticator()], anonymous=False))
    return Running(server, Filters(guards, dispatch), Filters(everybody, dispatch), bootstrap, compactor)


async def reachable(storage: Storage) -> str:
    """What is wrong with the storage, as a read of it shows: "" when it answers."""
    try:
        async with asyncio.timeout(STORAGE_CHECK_TIMEOUT):
            await storage.get(HEALTH_KEY)
    except (StorageError, TimeoutError) as error:
        return f"storage: {error or 'timeout'}"
    return ""


def is_served(table: TypeTable, info: RequestInfo) -> bool:
    row = table.find(info.group, info.version, info.resource)
    return row is not None and (not info.subresource or row.subresource(info.subresource) is not None)


def _authenticators(config: Config, bearer: BearerTokenAuthenticator) -> AuthenticatorChain:
    """In upstream's order: front proxy, client certificate, bearer token."""
    chain: list[Authenticator] = []
    if config.requestheader_client_ca_file is not None:
        names = RequestHeaderNames(config.requestheader_username_headers, config.requestheader_uid_headers,
                                   group=config.requestheader_group_headers,
                                   extra_prefix=config.requestheader_extra_headers_prefix)
        chain.append(RequestHeaderAuthenticator(ClientCAs([config.requestheader_client_ca_file]),
                                                config.requestheader_allowed_names, names))
    if config.client_ca_file is not None:
        chain.append(CertificateAuthenticator(ClientCAs([config.client_ca_file]), time.monotonic))
    chain.append(bearer)
    rule = _anonymous(config)
    return AuthenticatorChain(chain, anonymous=rule.enabled, anonymous_paths=rule.paths)


def _anonymous(config: Config) -> configuration.AnonymousRule:
    """Raises ConfigError when both the file and the flag say something."""
    rule = configuration.read(config.authentication_config) if config.authentication_config is not None else None
    if rule is not None and config.anonymous_auth is not None:
        raise ConfigError("--anonymous-auth and the field anonymous of --authentication-config exclude each other")
    # With AlwaysAllow everybody may do everything; upstream then turns anonymous off rather than on for the world.
    if "AlwaysAllow" in config.authorization_mode:
        return configuration.AnonymousRule(False)
    return rule or configuration.AnonymousRule(config.anonymous_auth is not False)


def _token_authenticators(config: Config, registry: Registry, clock: Clock) -> list[TokenAuthenticator]:
    found: list[TokenAuthenticator] = []
    if config.token_auth_file is not None:
        found.append(AudienceAgnostic(TokenFileAuthenticator.read(config.token_auth_file), config.audiences))
    if config.service_account_key_file:
        verifier = TokenVerifier(config.service_account_key_file)
        found.append(ServiceAccountAuthenticator(verifier, config.service_account_issuer, registry, clock.seconds,
                                                 config.audiences))
    if config.enable_bootstrap_token_auth:
        found.append(AudienceAgnostic(BootstrapTokenAuthenticator(registry, clock.seconds), config.audiences))
    return found


def _token_keys(config: Config) -> "dict[str, list[dict[str, str]]] | None":
    return TokenVerifier(config.service_account_key_file).jwks() if config.service_account_key_file else None


def _audit_ids() -> "itertools.chain[str]":
    """UUID-shaped, unique for this process, and far cheaper than reading the kernel's randomness for every request."""
    prefix = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4{secrets.token_hex(2)[1:]}-8{secrets.token_hex(2)[1:]}"
    return itertools.chain.from_iterable([(f"{prefix}-{number:012x}" for number in itertools.count(1))])


async def serve(config: Config) -> None:
    """Run until cancelled."""
    async with (running(config, Clock()) as parts, HTTPServer(parts.filters.handle) as http,
                HTTPServer(parts.unsecured.handle) as plain):
        assert config.tls_cert_file is not None and config.tls_private_key_file is not None
        cas = [path for path in (config.client_ca_file, config.requestheader_client_ca_file) if path is not None]
        context = tls.server_context(config.tls_cert_file, config.tls_private_key_file, cas)
        # Before anybody is answered: a client that came earlier would be forbidden what its role allows, and back off.
        await parts.bootstrap.run()
        port = await http.listen(config.bind_address, config.secure_port, context)
        log.info("listen address=%s port=%d pid=%d", config.bind_address, port, os.getpid())
        if config.insecure_port:
            await plain.listen(ADDRESS, config.insecure_port)
            log.warning('listen.insecure address=%s port=%d why="--insecure-port: whoever connects is system:masters, '
                        'without TLS, without authentication; for looking at history only"', ADDRESS,
                        config.insecure_port)
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.compactor.run(), name="compaction")
            await asyncio.Event().wait()
