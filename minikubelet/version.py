"""What this kubelet says it is.

Rule: the Kubernetes version first, so that clients compare it as they compare upstream's; our own after the plus
sign.
"""

KUBELET_VERSION = "v1.36.2+miniplane"
RUNTIME_VERSION = "miniplane://0.1.0"
USER_AGENT = "minikubelet/v1.36.2"
