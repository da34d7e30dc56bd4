"""ServiceAccounts, and what a TokenRequest may ask for one."""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import NAME_AND_AGE
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource, Subresource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
DEFAULT_SECONDS = 3600


def default_token_request(request: JSON, audiences: list[str]) -> None:
    """An hour, for this API server, bound to nothing."""
    spec = request["spec"] = request.get("spec") or {}
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = DEFAULT_SECONDS
    if not spec.get("audiences"):
        spec["audiences"] = list(audiences)
    spec.setdefault("boundObjectRef", None)


def token_request_errors(request: JSON) -> list[FieldError]:
    seconds = (request.get("spec") or {}).get("expirationSeconds") or 0
    path = "spec.expirationSeconds"
    errors = []
    if seconds < MIN_SECONDS:
        errors.append(invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > MAX_SECONDS:
        errors.append(invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    return errors


def service_account_row(group: Group) -> Resource:
    token = Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1")
    return group.row(
        "ServiceAccount",
        "serviceaccounts",
        ObjectStrategy(returns_deleted_object=True),
        table=NAME_AND_AGE,
        short=("sa",),
        subresources=(token,),
    )
