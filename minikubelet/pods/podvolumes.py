"""A pod's volumes, fed with what the kubelet knows.

My job: the sources of volumes: ConfigMaps and Secrets from `references`, tokens from `tokens`, fields from the pod. I
own nothing. Neighbours: `minikubelet.volumes` writes the files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from minikubelet.pods.downward import field_value, resource_value
from minikubelet.pods.environment import CONFIG_MAP, SECRET
from minikubelet.pods.expansion import expand
from minikubelet.pods.podref import pod_ref
from minikubelet.pods.references import References
from minikubelet.pods.tokens import TokenKey, TokenRequests
from minikubelet.volumes.content import Sources
from minikubelet.volumes.errors import SourceMissing
from minikubelet.volumes.volumes import Volumes
from wire.apiclient import APIError
from wire.errors import WireError

JSON = dict[str, Any]


def volumes_of(pod: JSON, pod_dir: Path, references: References, tokens: TokenRequests,
               allocatable: Callable[[], dict[str, str]]) -> Volumes:
    ref = pod_ref(pod)
    account = str(pod["spec"].get("serviceAccountName") or "default")

    async def from_api(kind: str, name: str) -> JSON | None:
        try:
            return await references.get(kind, ref.namespace, name)
        except (APIError, WireError) as error:
            raise SourceMissing(f'{kind} "{name}": {error}') from error

    async def config_map(name: str) -> JSON | None:
        return await from_api(CONFIG_MAP, name)

    async def secret(name: str) -> JSON | None:
        return await from_api(SECRET, name)

    async def token(audience: str, lifetime: int) -> str:
        try:
            return await tokens.token(TokenKey(ref, account, audience, lifetime))
        except (APIError, WireError) as error:
            raise SourceMissing(f"failed to fetch token: {error}") from error

    def resource(whole: JSON, reference: JSON) -> str:
        return resource_value(whole, "", reference, allocatable())

    return Volumes(pod, pod_dir, Sources(config_map, secret, token, field_value, resource), expand)
