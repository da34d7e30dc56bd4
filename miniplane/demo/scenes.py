"""The scenes, as a table.

My job: what each is called, what it says about itself, and which function plays it.
"""

from typing import Final

from miniplane.demo import kubeletscenes, proxyscenes
from miniplane.demo.scene import Scene

DEFAULT: Final = "kubelet-ca"

SCENES: Final[dict[str, Scene]] = {
    scene.name: scene
    for scene in (
        Scene(
            "kubelet-ca", "Who answers at the node's address?",
            "For logs, exec, attach and port-forward the API server dials the kubelet by TLS. By default it does not "
            "verify the certificate it is shown, so whoever takes the node's address is the kubelet.",
            "api-server-to-kubelet", "API server ──TLS──▶ MALLORY at the node's address ──TLS──▶ kubelet",
            kubeletscenes.kubelet_ca,
            "One flag is the difference. Without it the connection is encrypted, to the attacker.",
        ),
        Scene(
            "proxy-http", "Pods behind the API server's proxy: plain HTTP",
            "Connections from the API server to nodes, pods and services are plain HTTP by default: neither "
            "authenticated nor encrypted.",
            "api-server-to-nodes-pods-and-services", "API server ──HTTP──▶ MALLORY at the pod's address ──HTTP──▶ pod",
            proxyscenes.proxy_http,
            "The proxy path has no setting that would verify anything. port-forward goes through the kubelet, and is.",
        ),
        Scene(
            "proxy-https", "Pods behind the API server's proxy: https: before the name",
            "With the prefix the connection is encrypted. The certificate is not validated and no client credentials "
            "are provided, so there is no guarantee of integrity.",
            "api-server-to-nodes-pods-and-services", "API server ──TLS──▶ MALLORY at the pod's address ──TLS──▶ pod",
            proxyscenes.proxy_https,
            "Encrypted, and changed on the way: encryption without verification keeps out only those who do not try.",
        ),
        Scene(
            "ssh", "SSH tunnels",
            "The API server opens an SSH connection to each node and passes all its traffic to kubelets, nodes, pods "
            "and services through it. Deprecated; here host keys are pinned when the cluster is made.",
            "ssh-tunnels", "API server ══SSH══▶ MALLORY on the network ══SSH══▶ sshd ──▶ kubelet, pods",
            proxyscenes.ssh,
            "The tunnel hides what is plain inside it, and whoever is not the node it was made for gets nothing.",
        ),
        Scene(
            "konnectivity", "The Konnectivity service",
            "Agents in the nodes' network dial the Konnectivity server and keep the connections; all control plane to "
            "nodes traffic then goes through them.",
            "konnectivity-service",
            "API server ─▶ Konnectivity server ◀══mTLS══ MALLORY ◀══mTLS══ agent ──▶ kubelet, pods",
            proxyscenes.konnectivity,
            "Both ends of the tunnel verify each other. Behind it, in the nodes' network, things are as they were.",
        ),
        Scene(
            "anonymous-kubelet", "Whom the kubelet answers",
            "Finally, kubelet authentication and authorization should be enabled. The kubelet's bare flags accept "
            "anybody and allow everything; a man in the middle is then not even needed.",
            "api-server-to-kubelet", "MALLORY ──TLS, no credentials──▶ kubelet",
            kubeletscenes.anonymous_kubelet,
            "Verifying the kubelet protects the API server; authenticating to the kubelet protects the pods.",
        ),
        Scene(
            "node-to-api", "From the nodes to the API server",
            "Nodes, pods and people have the cluster's root certificate and verify the API server with it: secured by "
            "default, over any network.",
            "node-to-control-plane", "kubectl, kubelet, pod ──TLS──▶ MALLORY at the API server's place ──▶ API server",
            kubeletscenes.node_to_api,
            "No caller went on after the certificate: no token, no certificate, no request reached the attacker.",
        ),
    )
}  # fmt: skip
