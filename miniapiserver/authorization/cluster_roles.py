"""The default ClusterRoles of Kubernetes 1.36 and who has them.

Data. Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`.
"""

from miniapiserver.authorization.policy_rules import (
    CORE,
    EVENTS,
    EVERY_ACCESS,
    READ,
    READ_UPDATE,
    READ_WRITE,
    REVIEW_ACCESS,
    WRITE,
    Table,
    at,
    on,
)

APPS, BATCH, EXTENSIONS, POLICY = "apps", "batch", "extensions", "policy"
AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
AUTOSCALING, CERTIFICATES, COORDINATION = "autoscaling", "certificates.k8s.io", "coordination.k8s.io"
DISCOVERY, NETWORKING, RBAC = "discovery.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io"
RESOURCE, STORAGE = "resource.k8s.io", "storage.k8s.io"

HEALTH = "/healthz /livez /readyz"

#: What the Node authorizer allows beside the objects it knows a relation for; also the ClusterRole `system:node`.
NODE_RULES = (
    on("create", AUTHENTICATION, "tokenreviews"),
    on("create", AUTHORIZATION, "subjectaccessreviews localsubjectaccessreviews"),
    on(READ, CORE, "services"),
    on("create get list watch", CORE, "nodes"),
    on("update patch", CORE, "nodes/status"),
    on("update patch", CORE, "nodes"),
    on("create update patch", CORE, "events"),
    on(READ, CORE, "pods"),
    on("create delete", CORE, "pods"),  # mirror pods
    on("update patch", CORE, "pods/status"),
    on("create", CORE, "pods/eviction"),
    on(READ, CORE, "secrets configmaps"),
    on("get", CORE, "persistentvolumeclaims persistentvolumes"),
    on("get", CORE, "endpoints"),
    on("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    on("get create update patch delete", COORDINATION, "leases"),
    on("get", STORAGE, "volumeattachments"),
    on("create", CORE, "serviceaccounts/token"),
    on("get update patch", CORE, "persistentvolumeclaims/status"),
    on(READ, STORAGE, "csidrivers"),
    on("get create update patch delete", STORAGE, "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", RESOURCE, "resourceclaims"),
    on("get list watch create update patch delete", RESOURCE, "resourceslices"),
    on("deletecollection", RESOURCE, "resourceslices"),
    on("get", CORE, "serviceaccounts"),
)

_EDIT = (
    # Reading these is as good as writing them.
    on(READ, CORE, "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
    on("impersonate", CORE, "serviceaccounts"),
    on(WRITE, CORE, "pods pods/attach pods/proxy pods/exec pods/portforward"),
    on("create", CORE, "pods/eviction"),
    on(WRITE, CORE, "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy "
                    "persistentvolumeclaims configmaps secrets events"),
    on("create", CORE, "serviceaccounts/token"),
    on(WRITE, APPS, "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback "
                    "replicasets replicasets/scale"),
    on(WRITE, AUTOSCALING, "horizontalpodautoscalers"),
    on(WRITE, BATCH, "jobs cronjobs"),
    on(WRITE, EXTENSIONS, "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets "
                          "replicasets/scale replicationcontrollers/scale networkpolicies"),
    on(WRITE, POLICY, "poddisruptionbudgets"),
    on(WRITE, NETWORKING, "networkpolicies ingresses"),
    on(READ_WRITE, COORDINATION, "leases"),
    on(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
)

_VIEW = (
    on(READ, CORE, "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status "
                   "endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps"),
    on(READ, CORE, "limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status "
                   "replicationcontrollers/status pods/log"),
    on(READ, CORE, "namespaces"),  # in a namespace this means that one
    on(READ, DISCOVERY, "endpointslices"),
    on(READ, APPS, "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets "
                   "daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status "
                   "replicasets/scale"),
    on(READ, AUTOSCALING, "horizontalpodautoscalers horizontalpodautoscalers/status"),
    on(READ, BATCH, "jobs cronjobs cronjobs/status jobs/status"),
    on(READ, EXTENSIONS, "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
                         "ingresses/status replicasets replicasets/scale replicasets/status "
                         "replicationcontrollers/scale networkpolicies"),
    on(READ, POLICY, "poddisruptionbudgets poddisruptionbudgets/status"),
    on(READ, NETWORKING, "networkpolicies ingresses ingresses/status"),
    on(READ, RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
)

_SCHEDULER = (
    EVENTS,
    on("create", COORDINATION, "leases"),
    on("get list watch update", COORDINATION, "leases", names="kube-scheduler"),
    on(READ, CORE, "nodes"),
    on("get list watch delete", CORE, "pods"),
    on("create", CORE, "pods/binding bindings"),
    on("patch update", CORE, "pods/status"),
    on(READ, CORE, "services replicationcontrollers"),
    on(READ, f"{APPS} {EXTENSIONS}", "replicasets"),
    on(READ, APPS, "statefulsets"),
    on(READ, POLICY, "poddisruptionbudgets"),
    on(READ, CORE, "persistentvolumeclaims persistentvolumes"),
    *REVIEW_ACCESS,
    on(READ, STORAGE, "csinodes"),
    on(READ, CORE, "namespaces"),  # namespaceSelector in pod affinity
    on(READ, STORAGE, "csidrivers"),
    on(READ, STORAGE, "csistoragecapacities"),
    on(READ, STORAGE, "volumeattachments"),
    on(READ, RESOURCE, "deviceclasses"),
    on(READ_UPDATE, RESOURCE, "resourceclaims"),
    on(READ_UPDATE, RESOURCE, "resourceclaims/status"),
    on("update", CORE, "pods/finalizers"),
    on(READ, RESOURCE, "resourceslices"),
)

_CONTROLLER_MANAGER = (
    EVENTS,
    on("create", COORDINATION, "leases"),
    on("get list watch update", COORDINATION, "leases", names="kube-controller-manager"),
    on("create", CORE, "secrets serviceaccounts"),
    on("delete", CORE, "secrets"),
    on("get", CORE, "namespaces secrets serviceaccounts configmaps"),
    on("update", CORE, "secrets serviceaccounts"),
    *REVIEW_ACCESS,
    on("list watch", "*", "*"),  # every shared informer
    on("create", CORE, "serviceaccounts/token"),
)

CLUSTER_ROLES: Table = {
    "cluster-admin": EVERY_ACCESS,
    "system:discovery": (at("get", f"{HEALTH} /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*"),),
    "system:monitoring": (at("get", f"/metrics /metrics/slis /flagz /statusz {HEALTH} /livez/* /readyz/* /healthz/*"),
                          on("get", CORE, "nodes/metrics")),
    "system:basic-user": (on("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
                          on("create", AUTHENTICATION, "selfsubjectreviews")),
    "system:public-info-viewer": (at("get", f"{HEALTH} /version /version/"),),
    "system:aggregate-to-admin": (on("create", AUTHORIZATION, "localsubjectaccessreviews"),
                                  on(READ_WRITE, RBAC, "roles rolebindings")),
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    "system:heapster": (on(READ, CORE, "events pods nodes namespaces"), on(READ, EXTENSIONS, "deployments")),
    "system:node": NODE_RULES,
    "system:node-problem-detector": (on("get", CORE, "nodes"), on("patch", CORE, "nodes/status"), EVENTS),
    "system:kubelet-api-admin": (
        on(READ, CORE, "nodes"), on("proxy", CORE, "nodes"),
        on("*", CORE, "nodes/proxy nodes/metrics nodes/stats nodes/log nodes/pods nodes/healthz nodes/configz")),
    "system:node-bootstrapper": (on("create get list watch", CERTIFICATES, "certificatesigningrequests"),),
    "system:auth-delegator": REVIEW_ACCESS,
    "system:kube-aggregator": (on(READ, CORE, "services endpoints"),),
    "system:kube-controller-manager": _CONTROLLER_MANAGER,
    "system:kube-dns": (on("list watch", CORE, "endpoints services"),),
    "system:persistent-volume-provisioner": (
        on("get list watch create delete", CORE, "persistentvolumes"),
        on("get list watch update", CORE, "persistentvolumeclaims"),
        on(READ, STORAGE, "storageclasses"), on("watch", CORE, "events"), EVENTS),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        on("create", CERTIFICATES, "certificatesigningrequests/nodeclient"),),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        on("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient"),),
    "system:volume-scheduler": (on(READ_UPDATE, CORE, "persistentvolumes"), on(READ, STORAGE, "storageclasses"),
                                on(READ_UPDATE, CORE, "persistentvolumeclaims")),
    **{f"system:certificates.k8s.io:{signer}-approver": (
        on("approve", CERTIFICATES, "signers", names=f"kubernetes.io/{signer}"),)
       for signer in ("legacy-unknown", "kubelet-serving", "kube-apiserver-client", "kube-apiserver-client-kubelet")},
    "system:service-account-issuer-discovery": (
        at("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks "
                  "/openid/v1/jwks/"),),
    "system:node-proxier": (
        on("list watch", CORE, "services endpoints"), on(READ, CORE, "nodes"), EVENTS,
        on("list watch", NETWORKING, "servicecidrs"), on("list watch", DISCOVERY, "endpointslices")),
    "system:kube-scheduler": _SCHEDULER,
}

#: ClusterRole → the label that chooses what it is made of.
AGGREGATED = {name: f"rbac.authorization.k8s.io/aggregate-to-{name}" for name in ("admin", "edit", "view")}

#: ClusterRole → the aggregated role it is part of.
PART_OF = {"edit": "admin", "view": "edit", "system:aggregate-to-admin": "admin", "system:aggregate-to-edit": "edit",
           "system:aggregate-to-view": "view"}

AUTHENTICATED, UNAUTHENTICATED = "Group system:authenticated", "Group system:unauthenticated"

#: ClusterRoleBinding (named like its role) → subjects: `Kind name`, service accounts as `namespace/name`.
CLUSTER_ROLE_BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("Group system:masters",),
    "system:monitoring": ("Group system:monitoring",),
    "system:discovery": (AUTHENTICATED,),
    "system:basic-user": (AUTHENTICATED,),
    "system:public-info-viewer": (AUTHENTICATED, UNAUTHENTICATED),
    "system:node-proxier": ("User system:kube-proxy",),
    "system:kube-controller-manager": ("User system:kube-controller-manager",),
    "system:kube-dns": ("ServiceAccount kube-system/kube-dns",),
    "system:kube-scheduler": ("User system:kube-scheduler",),
    "system:volume-scheduler": ("User system:kube-scheduler",),
    "system:node": (),  # nodes are the Node authorizer's; the empty binding says that nobody forgot them
    "system:service-account-issuer-discovery": ("Group system:serviceaccounts",),
}
