"""The Node authorizer: a kubelet may reach what belongs to its own node.

My job: decide requests of users `system:node:<name>` in the group `system:nodes`, by the graph and by the fixed rules
of the ClusterRole `system:node`; for everybody else no opinion. What a node may write into its objects is
NodeRestriction's to say. Rules and reasons: `plugin/pkg/auth/authorizer/node/node_authorizer.go`.
"""

from collections.abc import Callable

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.cluster_roles import NODE_RULES
from miniapiserver.authorization.graph import NodeGraph
from miniapiserver.authorization.interface import NO_OPINION, Attributes, Decision, RulesInfo, Verdict
from miniapiserver.authorization.rules import RoleTable
from miniapiserver.errors import BadRequest
from miniapiserver.selectors import parse_field_selector

NODES_GROUP = "system:nodes"
USER_PREFIX = "system:node:"
LEASE_NAMESPACE = "kube-node-lease"

ALLOW = Verdict(Decision.ALLOW)


def node_of(user: UserInfo) -> str | None:
    """The node a user is; "" for a member of `system:nodes` without a name, None for everybody else."""
    if not user.name.startswith(USER_PREFIX) or NODES_GROUP not in user.groups:
        return None
    return user.name[len(USER_PREFIX):]


def _no(reason: str) -> Verdict:
    return Verdict(Decision.NO_OPINION, reason)


class NodeAuthorizer:
    """Lives as long as the server."""

    def __init__(self, graph: NodeGraph) -> None:
        self._graph = graph
        self._rules = RoleTable(NODE_RULES)
        self._resources: dict[tuple[str, str], Callable[[str, Attributes], Verdict]] = {
            ("", "secrets"): self._read_one, ("", "configmaps"): self._read_one,
            ("", "persistentvolumeclaims"): self._claim, ("", "persistentvolumes"): self._get,
            ("resource.k8s.io", "resourceclaims"): self._get, ("storage.k8s.io", "volumeattachments"): self._get,
            ("", "serviceaccounts"): self._account, ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node, ("resource.k8s.io", "resourceslices"): self._slice,
            ("", "nodes"): self._node, ("", "pods"): self._pod}

    async def authorize(self, attributes: Attributes) -> Verdict:
        node = node_of(attributes.user)
        if node is None:
            return NO_OPINION
        if not node:
            return _no(f'unknown node for user "{attributes.user.name}"')
        await self._graph.start()
        decide = self._resources.get((attributes.group, attributes.resource)) if attributes.is_resource else None
        if decide is not None:
            return decide(node, attributes)
        return ALLOW if self._rules.allows(attributes) else NO_OPINION

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        if node_of(user) is None:
            return RulesInfo()
        return RulesInfo(incomplete=True, error="node authorizer does not support user rule resolution")

    def _related(self, node: str, asked: Attributes) -> Verdict:
        if not asked.name:
            return _no("No Object name found")
        if self._graph.has_path(node, asked.resource, asked.namespace, asked.name):
            return ALLOW
        return _no(f"no relationship found between node '{node}' and this object")

    def _read_one(self, node: str, asked: Attributes) -> Verdict:
        if asked.verb not in ("get", "list", "watch"):
            return _no("can only read resources of this type")
        if asked.subresource:
            return _no("cannot read subresource")
        if not asked.namespace:
            return _no("can only read namespaced object of this type")
        return self._related(node, asked)

    def _get(self, node: str, asked: Attributes) -> Verdict:
        if asked.verb != "get":
            return _no("can only get individual resources of this type")
        if asked.subresource:
            return _no("cannot get subresource")
        return self._related(node, asked)

    def _claim(self, node: str, asked: Attributes) -> Verdict:
        if asked.subresource != "status":
            return self._get(node, asked)
        if asked.verb not in ("update", "patch"):
            return _no("can only get/update/patch this type")
        return self._related(node, asked)

    def _account(self, node: str, asked: Attributes) -> Verdict:
        if asked.verb == "get" and not asked.subresource:
            return self._related(node, asked)
        if asked.verb != "create" or not asked.name:
            return _no("can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return _no("can only create token subresource of serviceaccount")
        return self._related(node, asked)

    def _lease(self, node: str, asked: Attributes) -> Verdict:
        if asked.verb not in ("get", "create", "update", "patch", "delete"):
            return _no("can only get, create, update, patch, or delete a node lease")
        if asked.namespace != LEASE_NAMESPACE:
            return _no(f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        # At create the name is in the body, which NodeRestriction sees and this does not.
        if asked.verb != "create" and asked.name != node:
            return _no("can only access node lease with the same name as the requesting node")
        return ALLOW

    def _csi_node(self, node: str, asked: Attributes) -> Verdict:
        if asked.verb not in ("get", "create", "update", "patch", "delete"):
            return _no("can only get, create, update, patch, or delete a CSINode")
        if asked.subresource:
            return _no("cannot authorize CSINode subresources")
        if asked.verb != "create" and asked.name != node:
            return _no("can only access CSINode with the same name as the requesting node")
        return ALLOW

    def _slice(self, node: str, asked: Attributes) -> Verdict:
        if asked.subresource:
            return _no("cannot authorize ResourceSlice subresources")
        if asked.verb == "create":
            return ALLOW
        if asked.verb in ("get", "update", "patch", "delete"):
            return self._related(node, asked)
        if asked.verb not in ("watch", "list", "deletecollection"):
            return _no("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, "
                       "patch, delete, deletecollection")
        # The selector upstream knows is `spec.nodeName`; its authorizer compares with the older `nodeName` too.
        if any(_selects(asked.field_selector, field, node) for field in ("spec.nodeName", "nodeName")):
            return ALLOW
        return _no("can only list/watch/deletecollection resourceslices with nodeName field selector")

    def _node(self, node: str, asked: Attributes) -> Verdict:
        if asked.subresource == "status":
            return ALLOW if asked.verb in ("update", "patch") else NO_OPINION
        if asked.subresource or asked.verb not in ("create", "update", "patch", "get", "list", "watch"):
            return NO_OPINION
        if asked.verb in ("create", "update", "patch") or asked.name == node:
            return ALLOW
        if not asked.name:
            return _no(f"node '{node}' cannot read all nodes, only its own Node object")
        return _no(f"node '{node}' cannot read '{asked.name}', only its own Node object")

    def _pod(self, node: str, asked: Attributes) -> Verdict:
        if (asked.subresource, asked.verb) in _POD_WRITES:
            return ALLOW
        if asked.subresource or asked.verb not in ("get", "list", "watch"):
            return NO_OPINION
        if asked.verb == "get":
            return self._get(node, asked)
        if _selects(asked.field_selector, "spec.nodeName", node):
            return ALLOW
        if asked.name:
            return self._related(node, asked)
        return _no("can only list/watch pods with spec.nodeName field selector")


#: (subresource, verb): whose pod it is, NodeRestriction checks. Create and delete are for mirror pods.
_POD_WRITES = frozenset({("", "create"), ("", "delete"), ("status", "update"), ("status", "patch"),
                         ("eviction", "create")})


def _selects(selector: str, field: str, value: str) -> bool:
    """Whether the selector can only choose objects whose `field` is `value`."""
    try:
        terms = parse_field_selector(selector, known=_Anything()).terms
    except BadRequest:
        return False
    return any(term.equal and term.field == field and term.value == value for term in terms)


class _Anything(tuple[str, ...]):
    """The fields a selector may name when its resource is not known here: any."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return True
