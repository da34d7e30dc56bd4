"""The parts of one API server, put together once and shared by every endpoint.

My job: hold them. `server` builds me from the Config; endpoints take from me what they need. I do nothing.
"""

from dataclasses import dataclass

from miniapiserver.admission.chain import AdmissionChain
from miniapiserver.audit import AuditLog
from miniapiserver.authentication.bearertoken import BearerTokenAuthenticator
from miniapiserver.authorization.interface import Authorizer
from miniapiserver.config import Config
from miniapiserver.endpoints.health import Health
from miniapiserver.metrics import Metrics
from miniapiserver.registry.call import Call
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.options import WriteOptions
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.tokens import TokenIssuer
from miniapiserver.request import Request
from miniapiserver.resources.resource import TypeTable


@dataclass(frozen=True, slots=True)
class APIServer:
    """`tokens` is None when no service account signing key was given."""

    config: Config
    table: TypeTable
    registry: Registry
    admission: AdmissionChain
    authorizer: Authorizer
    bearer_tokens: BearerTokenAuthenticator
    tokens: TokenIssuer | None
    health: Health
    metrics: Metrics
    audit: AuditLog | None
    clock: Clock

    def call(self, request: Request, options: WriteOptions, subresource: str = "") -> Call:
        return Call(request.user, options, self.admission, self.clock, subresource, request.warnings)
