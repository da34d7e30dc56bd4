"""ServiceAccounts. What a token may be asked for is the registry's (`registry.tokens`)."""

from miniapiserver.resources.columns import NAME_AND_AGE
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource, Subresource
from miniapiserver.resources.strategy import ObjectStrategy


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
