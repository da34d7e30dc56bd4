"""A pod's name and its resolver.

My job: host name, FQDN and the content of /etc/resolv.conf from a pod's spec (upstream network/dns). Pure.
Neighbours: `launch` puts both into the container.
"""

from collections.abc import Sequence
from typing import Any

from minikubelet.pods.podref import is_host_network

JSON = dict[str, Any]

MAX_HOSTNAME = 63


def host_name(pod: JSON, node_name: str) -> str:
    if override := pod["spec"].get("hostnameOverride"):
        return str(override)
    if is_host_network(pod):
        return node_name
    name = str(pod["spec"].get("hostname") or pod["metadata"]["name"])
    return name[:MAX_HOSTNAME].rstrip("-.")


def qualified_name(pod: JSON, node_name: str, cluster_domain: str) -> str:
    """`name.subdomain.namespace.svc.domain`, or empty where the pod has no subdomain."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain:
        return ""
    return f"{host_name(pod, node_name)}.{subdomain}.{pod['metadata'].get('namespace', 'default')}.svc.{cluster_domain}"


def extra_hosts(pod: JSON, node_name: str, pod_ip: str, cluster_domain: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Lines of /etc/hosts beyond the usual ones."""
    lines = [(str(alias["ip"]), tuple(alias.get("hostnames") or ())) for alias in pod["spec"].get("hostAliases") or ()]
    if full := qualified_name(pod, node_name, cluster_domain):
        lines.insert(0, (pod_ip, (full, host_name(pod, node_name))))
    return tuple(lines)


def resolv_conf(pod: JSON, cluster_dns: Sequence[str], cluster_domain: str) -> str | None:
    """The file's text; None means the host's own file."""
    policy, config = pod["spec"].get("dnsPolicy") or "ClusterFirst", pod["spec"].get("dnsConfig") or {}
    wants_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not is_host_network(pod))
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    if wants_cluster and cluster_dns:
        namespace = pod["metadata"].get("namespace", "default")
        servers = list(cluster_dns)
        searches = [f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain]
        options = ["ndots:5"]
    elif policy != "None" and not config:
        return None
    servers += [item for item in config.get("nameservers") or () if item not in servers]
    searches += [item for item in config.get("searches") or () if item not in searches]
    options = _options(options, config.get("options") or ())
    lines = ["search " + " ".join(searches)] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    lines += ["options " + " ".join(options)] if options else []
    return "\n".join(lines) + "\n"


def _options(base: list[str], more: Sequence[JSON]) -> list[str]:
    merged = {option.partition(":")[0]: option for option in base}
    for option in more:
        name = str(option["name"])
        merged[name] = f"{name}:{option['value']}" if option.get("value") else name
    return list(merged.values())
