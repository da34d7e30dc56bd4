"""What each controller may do: ClusterRoles `system:controller:<name>`, bound to ServiceAccount kube-system/<name>.

Data, for Kubernetes 1.36 with its default feature gates. Upstream:
`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go`.
"""

from miniapiserver.authorization.cluster_roles import (
    APPS,
    AUTHORIZATION,
    AUTOSCALING,
    BATCH,
    CERTIFICATES,
    DISCOVERY,
    EXTENSIONS,
    NETWORKING,
    POLICY,
    RBAC,
    RESOURCE,
    STORAGE,
)
from miniapiserver.authorization.policy_rules import CORE, EVENTS, READ, Table, on

_APPS = f"{APPS} {EXTENSIONS}"
_ADMISSION = "admissionregistration.k8s.io"
_SIGNER_NAMES = ("kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet "
                 "kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown")

CONTROLLER_ROLES: Table = {
    "attachdetach-controller": (
        on("list watch", CORE, "persistentvolumes persistentvolumeclaims"), on(READ, CORE, "nodes"),
        on("patch update", CORE, "nodes/status"), on("list watch", CORE, "pods"), EVENTS,
        on("get create delete list watch", STORAGE, "volumeattachments"), on(READ, STORAGE, "csidrivers"),
        on(READ, STORAGE, "csinodes")),
    "clusterrole-aggregation-controller": (on("escalate get list watch update patch", RBAC, "clusterroles"),),
    "cronjob-controller": (
        on("get list watch update", BATCH, "cronjobs"), on("get list watch create update delete patch", BATCH, "jobs"),
        on("update", BATCH, "cronjobs/status"), on("update", BATCH, "cronjobs/finalizers"),
        on("list watch delete", CORE, "pods"), EVENTS),
    "daemon-set-controller": (
        on(READ, _APPS, "daemonsets"), on("update", _APPS, "daemonsets/status"),
        on("update", _APPS, "daemonsets/finalizers"), on("list watch", CORE, "nodes"),
        on("list watch create delete patch", CORE, "pods"), on("create", CORE, "pods/binding"),
        on("get list watch create delete update patch", APPS, "controllerrevisions"), EVENTS),
    "deployment-controller": (
        on("get list watch update", _APPS, "deployments"), on("update", _APPS, "deployments/status"),
        on("update", _APPS, "deployments/finalizers"),
        on("get list watch create update patch delete", _APPS, "replicasets"),
        on("get list watch update", CORE, "pods"), EVENTS),
    "disruption-controller": (
        on(READ, _APPS, "deployments"), on(READ, _APPS, "replicasets"), on(READ, CORE, "replicationcontrollers"),
        on(READ, POLICY, "poddisruptionbudgets"), on(READ, APPS, "statefulsets"),
        on("update", POLICY, "poddisruptionbudgets/status"), on("patch update", CORE, "pods/status"),
        on("get", "*", "*/scale"), EVENTS),
    "endpoint-controller": (
        on(READ, CORE, "services pods"), on("get list watch create update delete", CORE, "endpoints"),
        on("create", CORE, "endpoints/restricted"), EVENTS),
    "endpointslice-controller": (
        on(READ, CORE, "services pods nodes"), on("update", CORE, "services/finalizers"),
        on("get list watch create update delete", DISCOVERY, "endpointslices"), EVENTS),
    "endpointslicemirroring-controller": (
        on(READ, CORE, "services endpoints"), on("update", CORE, "services/finalizers"),
        on("update", CORE, "endpoints/finalizers"),
        on("get list watch create update delete", DISCOVERY, "endpointslices"), EVENTS),
    "expand-controller": (
        on("get list watch update patch", CORE, "persistentvolumes"),
        on("update patch", CORE, "persistentvolumeclaims/status"), on(READ, CORE, "persistentvolumeclaims"), EVENTS),
    "ephemeral-volume-controller": (
        on(READ, CORE, "pods"), on("update", CORE, "pods/finalizers"),
        on("get list watch create", CORE, "persistentvolumeclaims"), EVENTS),
    "resource-claim-controller": (
        on(READ, CORE, "pods"), on("update", CORE, "pods/finalizers"),
        on("get list watch create delete", RESOURCE, "resourceclaims"),
        on("update patch", RESOURCE, "resourceclaims resourceclaims/status"), on("update patch", CORE, "pods/status"),
        EVENTS),
    "device-taint-eviction-controller": (
        on("get list watch delete", CORE, "pods"), on("update patch", CORE, "pods/status"),
        on(READ, RESOURCE, "resourceclaims"), on(READ, RESOURCE, "resourceslices"), on(READ, RESOURCE, "deviceclasses"),
        EVENTS),
    "generic-garbage-collector": (on("get list watch patch update delete", "*", "*"), EVENTS),
    "horizontal-pod-autoscaler": (
        on(READ, AUTOSCALING, "horizontalpodautoscalers"), on("update", AUTOSCALING, "horizontalpodautoscalers/status"),
        on("get update", "*", "*/scale"), on("list watch", CORE, "pods"), on("list watch", "metrics.k8s.io", "pods"),
        on(READ, "custom.metrics.k8s.io", "*"), on(READ, "external.metrics.k8s.io", "*"), EVENTS),
    "job-controller": (
        on("get list watch update patch", BATCH, "jobs"), on("update", BATCH, "jobs/status"),
        on("update", BATCH, "jobs/finalizers"), on("list watch create delete patch", CORE, "pods"), EVENTS),
    "namespace-controller": (
        on("get list watch delete", CORE, "namespaces"), on("update", CORE, "namespaces/finalize namespaces/status"),
        on("get list watch delete deletecollection", "*", "*")),
    "node-controller": (
        on("get list watch update delete patch", CORE, "nodes"), on("patch update", CORE, "nodes/status"),
        on("patch update", CORE, "pods/status"), on("list watch get delete", CORE, "pods"), EVENTS),
    "persistent-volume-binder": (
        on("get list watch update create delete", CORE, "persistentvolumes"),
        on("update", CORE, "persistentvolumes/status"), on("get list watch update", CORE, "persistentvolumeclaims"),
        on("update", CORE, "persistentvolumeclaims/status"), on("list watch get create delete", CORE, "pods"),
        on(READ, STORAGE, "storageclasses"), on("list watch", CORE, "nodes"), EVENTS, on("watch", CORE, "events")),
    "pod-garbage-collector": (
        on("list watch delete", CORE, "pods"), on(READ, CORE, "nodes"), on("patch", CORE, "pods/status")),
    "replicaset-controller": (
        on("get list watch update", _APPS, "replicasets"), on("update", _APPS, "replicasets/status"),
        on("update", _APPS, "replicasets/finalizers"), on("list watch patch create delete", CORE, "pods"),
        on(READ, CORE, "nodes"), EVENTS),
    "replication-controller": (
        on("get list watch update", CORE, "replicationcontrollers"),
        on("update", CORE, "replicationcontrollers/status"), on("update", CORE, "replicationcontrollers/finalizers"),
        on("list watch patch create delete", CORE, "pods"), EVENTS),
    "resourcequota-controller": (on("list watch", "*", "*"), on("update", CORE, "resourcequotas/status"), EVENTS),
    "route-controller": (on("list watch", CORE, "nodes"), on("patch", CORE, "nodes/status"), EVENTS),
    "service-account-controller": (on("create", CORE, "serviceaccounts"), EVENTS),
    "service-controller": (
        on(READ, CORE, "services"), on("patch update", CORE, "services/status"), on("list watch", CORE, "nodes"),
        EVENTS),
    "service-cidrs-controller": (
        on("get list watch patch update", NETWORKING, "servicecidrs"),
        on("patch update", NETWORKING, "servicecidrs/finalizers"),
        on("patch update", NETWORKING, "servicecidrs/status"),
        on(READ, NETWORKING, "ipaddresses"), EVENTS),
    "statefulset-controller": (
        on("list watch", CORE, "pods"), on(READ, APPS, "statefulsets"), on("update", APPS, "statefulsets/status"),
        on("update", APPS, "statefulsets/finalizers"), on("get create delete update patch", CORE, "pods"),
        on("get create delete update patch list watch", APPS, "controllerrevisions"),
        on("get create list watch", CORE, "persistentvolumeclaims"),
        on("update delete", CORE, "persistentvolumeclaims"), on("update", CORE, "pods/finalizers"), EVENTS),
    "ttl-controller": (on("update patch list watch", CORE, "nodes"), EVENTS),
    "certificate-controller": (
        on("get list watch delete", CERTIFICATES, "certificatesigningrequests"),
        on("update", CERTIFICATES, "certificatesigningrequests/status certificatesigningrequests/approval"),
        on("approve", CERTIFICATES, "signers", names="kubernetes.io/kube-apiserver-client-kubelet"),
        on("sign", CERTIFICATES, "signers", names=_SIGNER_NAMES),
        on("create", AUTHORIZATION, "subjectaccessreviews"), EVENTS),
    "pvc-protection-controller": (
        on("get list watch update", CORE, "persistentvolumeclaims"),
        on("update", CORE, "persistentvolumeclaims/status"), on(READ, CORE, "pods"), EVENTS),
    "pv-protection-controller": (on("get list watch update", CORE, "persistentvolumes"), EVENTS),
    "volumeattributesclass-protection-controller": (
        on(READ, CORE, "persistentvolumeclaims"), on(READ, CORE, "persistentvolumes"),
        on("get list watch update", STORAGE, "volumeattributesclasses"), EVENTS),
    "ttl-after-finished-controller": (on("get list watch delete", BATCH, "jobs"), EVENTS),
    "root-ca-cert-publisher": (on("create update", CORE, "configmaps"), EVENTS),
    "validatingadmissionpolicy-status-controller": (
        on(READ, _ADMISSION, "validatingadmissionpolicies"),
        on("get patch update", _ADMISSION, "validatingadmissionpolicies/status"), EVENTS),
    "legacy-service-account-token-cleaner": (
        on("get", CORE, "configmaps", names="kube-apiserver-legacy-service-account-token-tracking"),
        on("patch delete", CORE, "secrets")),
    "selinux-warning-controller": (
        EVENTS, on(READ, CORE, "persistentvolumes"), on(READ, CORE, "persistentvolumeclaims"), on(READ, CORE, "pods"),
        on(READ, STORAGE, "csidrivers")),
}
