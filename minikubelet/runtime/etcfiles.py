"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: text, then mounts.

My job: what the kubelet manages in /etc, for the host view and for images alike. I own nothing but the files I write
into the container's scratch directory. `process` calls me; a volume the pod mounts at the same path wins.
"""

from pathlib import Path

from minikubelet.runtime.interface import ContainerSpec, Mount

MANAGED = "# Kubernetes-managed hosts file.\n"
LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def hosts(spec: ContainerSpec, host_file: str) -> str:
    """With the host's network the host's own file is the base, as upstream does it."""
    if spec.host_network:
        text = "# Kubernetes-managed hosts file (host network).\n" + host_file
    else:
        text = MANAGED + LOCAL + (f"{spec.pod_ip}\t{spec.hostname}\n" if spec.pod_ip else "")
    if spec.extra_hosts:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{ip}\t" + "\t".join(names) + "\n" for ip, names in spec.extra_hosts)
    return text


def mounts(spec: ContainerSpec, directory: Path) -> tuple[Mount, ...]:
    """Writes the files and says where they belong."""
    taken = {mount.container_path.rstrip("/") for mount in spec.mounts}
    files = {"/etc/hosts": hosts(spec, _read("/etc/hosts")), "/etc/hostname": spec.hostname + "\n"}
    resolv = spec.resolv_conf if spec.resolv_conf is not None else _read("/etc/resolv.conf")
    if resolv:
        files["/etc/resolv.conf"] = resolv
    found = []
    for path, text in files.items():
        if path not in taken and "/etc" not in taken:
            file = directory / Path(path).name
            file.write_text(text)
            file.chmod(0o644)
            found.append(Mount(file, path))
    return tuple(found)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
