"""What is legal in a pod and yet worth a word.

My job: texts of `Warning` headers for pods and templates (kubernetes `pkg/api/pod/warnings.go`).
"""

from typing import Any

from miniapiserver.resources.pods.values import objects

JSON = dict[str, Any]

_OLD_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_OLD_VOLUMES = {
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
}


def pod_warnings(spec: JSON, path: str) -> list[str]:
    texts = [f"{path}.nodeSelector[{key}]: {words}" for key, words in _OLD_NODE_LABELS.items()
             if key in (spec.get("nodeSelector") or {})]
    texts += _volume_warnings(spec, path)
    texts += [f'{path}.imagePullSecrets[{index}].name: invalid empty name "{secret.get("name") or ""}"'
              for index, secret in enumerate(objects(spec.get("imagePullSecrets"))) if not secret.get("name")]
    for key in ("initContainers", "containers"):
        for index, container in enumerate(objects(spec.get(key))):
            texts += _env_warnings(container, f"{path}.{key}[{index}]")
    return texts


def _volume_warnings(spec: JSON, path: str) -> list[str]:
    return [f"{path}.volumes[{index}].{key}: {words}" for index, volume in enumerate(objects(spec.get("volumes")))
            for key, words in _OLD_VOLUMES.items() if volume.get(key) is not None]


def _env_warnings(container: JSON, path: str) -> list[str]:
    texts: list[str] = []
    first: dict[str, int] = {}
    for index, variable in enumerate(objects(container.get("env"))):
        name = variable.get("name") or ""
        if name in first and f"$({name})" not in (variable.get("value") or ""):
            texts.append(
                f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
            )
        first.setdefault(name, index)
    return texts


