"""Who may open a Connect call: agents with a service account token (mTLS is settled before, by TLS).

Job: one TokenReview per call. Neighbours: `agentservice` asks, `wire.apiclient` carries the question. Rule: everything
but a clear yes for exactly the expected user is a no.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from konnectivity.protocol.grpcevents import Metadata

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
Review = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Authenticate = Callable[[Metadata], Awaitable[None]]


class Unauthenticated(Exception):
    """The agent is not who it should be. The text goes to the log, and to the agent in general words only."""


async def allow_all(metadata: Metadata) -> None:
    """mTLS alone decides."""


@dataclass(frozen=True, slots=True)
class TokenAuthentication:
    """`review` posts a TokenReview and returns it with its status."""

    review: Review
    namespace: str
    service_account: str
    audience: str

    async def __call__(self, metadata: Metadata) -> None:
        token = bearer_token(metadata)
        answer = await self.review(
            {
                "kind": "TokenReview",
                "apiVersion": "authentication.k8s.io/v1",
                "metadata": {},
                "spec": {"token": token, "audiences": [self.audience]},
            }
        )
        status = answer.get("status") or {}
        if not status.get("authenticated"):
            raise Unauthenticated(f"token review: {status.get('error') or 'not authenticated'}")
        if self.audience not in (status.get("audiences") or ()):
            raise Unauthenticated(f"token is not for audience {self.audience}")
        wanted = f"system:serviceaccount:{self.namespace}:{self.service_account}"
        user = (status.get("user") or {}).get("username")
        if user != wanted:
            raise Unauthenticated(f"token of {user!r}, want {wanted!r}")


def bearer_token(metadata: Metadata) -> str:
    """The one token of the call. Upstream's agent sends its file untrimmed, so blanks around it are no error."""
    values = list(metadata.get("authorization", ()))
    if len(values) != 1:
        raise Unauthenticated(f"{len(values)} authorization values in the metadata, want 1")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("authorization is not a bearer token")
    return token.strip()
