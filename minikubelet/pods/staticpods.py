"""Static pods: manifests in a folder, run without the API server, shown there as mirror pods.

My job: read the folder, hand each pod to `workers`, keep its mirror at the API server (upstream config/file.go,
pod/mirror client). I own the loop over the folder and the one over the mirrors. Rule: a file that cannot be read
changes nothing that runs; a mirror that was deleted or does not match is made anew.
"""

import asyncio
import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from minikubelet.clock import Clock, rfc3339_fine
from minikubelet.logline import kv
from minikubelet.pods.podref import (
    HASH_ANNOTATION,
    MIRROR_ANNOTATION,
    SEEN_ANNOTATION,
    SOURCE_ANNOTATION,
    is_mirror,
    pod_ref,
)
from minikubelet.pods.workers import PodWorkers
from wire.apiclient import APIError, Client, NotFound, resource_path
from wire.errors import WireError
from wire.informer import Informer

JSON = dict[str, Any]
Key = tuple[str, str]

LOOK_EVERY = 1.0
"""Looking is one stat per file; upstream is told by inotify and looks each 20 s besides."""

log = logging.getLogger(__name__)


class InvalidManifest(Exception):
    """A file that holds no pod."""


@dataclass(frozen=True, slots=True)
class StaticPod:
    path: Path
    pod: JSON
    hash: str

    @property
    def key(self) -> Key:
        ref = pod_ref(self.pod)
        return ref.namespace, ref.name


def read_manifest(path: Path, node_name: str, seen: str) -> StaticPod:
    """The pod in a file, with its name, uid and annotations as upstream makes them. Raises InvalidManifest."""
    try:
        pod = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidManifest(" ".join(str(error).split())) from error
    if not isinstance(pod, dict) or pod.get("kind") != "Pod" or pod.get("apiVersion") != "v1":
        raise InvalidManifest("not a v1 Pod")
    meta, spec = pod.setdefault("metadata", {}), pod.get("spec")
    if not meta.get("name") or not isinstance(spec, dict) or not spec.get("containers"):
        raise InvalidManifest("metadata.name and spec.containers are required")
    digest = hashlib.md5(orjson.dumps(pod, option=orjson.OPT_SORT_KEYS) + f"{node_name}{path}".encode(),
                         usedforsecurity=False).hexdigest()
    meta["name"] = f"{meta['name']}-{node_name}".lower()
    meta.setdefault("namespace", "default")
    meta["uid"] = digest
    meta["annotations"] = (meta.get("annotations") or {}) | {
        SOURCE_ANNOTATION: "file", HASH_ANNOTATION: digest, SEEN_ANNOTATION: seen}
    _defaulted(spec)
    spec["nodeName"] = node_name
    return StaticPod(path, pod, digest)


def _defaulted(spec: JSON) -> None:
    """The API server's defaults that this kubelet relies on; nobody else sets them for a static pod."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("enableServiceLinks", True)
    tolerations = spec.setdefault("tolerations", [])
    if not any(item.get("operator") == "Exists" and not item.get("key") for item in tolerations):
        tolerations.append({"operator": "Exists", "effect": "NoExecute"})
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        latest = str(container.get("image", "")).rpartition("/")[2].partition(":")[2] in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")


class StaticPods:
    """The static pods of this node. Lives as long as the kubelet."""

    def __init__(self, folder: Path, node_name: str, client: Client, workers: PodWorkers, clock: Clock,
                 api_pods: Informer, node: Callable[[], JSON]) -> None:
        self._folder, self._node_name, self._client = folder, node_name, client
        self._workers, self._clock, self._api_pods = workers, clock, api_pods
        self._known: dict[Path, StaticPod] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._mirrors_dirty = asyncio.Event()
        self._node = node

    async def run(self) -> None:
        self._api_pods.subscribe(self._on_api_pod)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_folder(), name="static pod folder")
            tasks.create_task(self._keep_mirrors(), name="mirror pods")

    # The folder

    async def _watch_folder(self) -> None:
        while True:
            self.look()
            await self._clock.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Compare the folder with what is known, and tell the workers the difference."""
        present = self._stamped_files()
        for path in [path for path in self._known if path not in present]:
            self._drop(path)
        for path, stamp in present.items():
            if self._stamps.get(path) != stamp:
                self._stamps[path] = stamp
                self._read(path)
        self._stamps = {path: stamp for path, stamp in self._stamps.items() if path in present}

    def _stamped_files(self) -> dict[Path, tuple[int, int]]:
        try:
            files = sorted(path for path in self._folder.iterdir()
                           if not path.name.startswith(".") and path.suffix in (".yaml", ".yml", ".json"))
            return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}
        except OSError:
            return {}

    def _read(self, path: Path) -> None:
        try:
            found = read_manifest(path, self._node_name, rfc3339_fine(self._clock.now()))
        except InvalidManifest as error:
            log.warning("manifest.unreadable %s", kv(file=path, error=error))
            return
        known = self._known.get(path)
        if known is not None and known.hash == found.hash:
            return
        if known is not None:
            self._workers.remove(known.hash)
        self._known[path] = found
        log.info("manifest.read %s", kv(file=path, pod=found.pod["metadata"]["name"]))
        self._workers.put(copy.deepcopy(found.pod))
        self._mirrors_dirty.set()

    def _drop(self, path: Path) -> None:
        gone = self._known.pop(path)
        log.info("manifest.gone %s", kv(file=path, pod=gone.pod["metadata"]["name"]))
        self._workers.remove(gone.hash)
        self._mirrors_dirty.set()

    # The mirrors

    def _on_api_pod(self, event: str, new: JSON | None, old: JSON | None) -> None:
        pod = new or old
        if pod is not None and is_mirror(pod):
            self._mirrors_dirty.set()

    async def _keep_mirrors(self) -> None:
        await self._api_pods.synced.wait()
        while True:
            await self._mirrors_dirty.wait()
            self._mirrors_dirty.clear()
            try:
                await self._reconcile()
            except (APIError, WireError) as error:
                log.warning("mirror.retry %s", kv(error=error))
                self._mirrors_dirty.set()
                await self._clock.sleep(1.0)

    async def _reconcile(self) -> None:
        wanted = {known.key: known for known in self._known.values()}
        mirrors = {key: pod for key, pod in self._api_pods.objects.items() if is_mirror(pod)}
        for key, mirror in mirrors.items():
            known = wanted.get(key)
            annotations = mirror["metadata"]["annotations"]
            if known is None or annotations[MIRROR_ANNOTATION] != known.hash or \
                    mirror["metadata"].get("deletionTimestamp"):
                await self._delete(mirror)
        for key, known in wanted.items():
            existing = mirrors.get(key)
            if existing is None and key not in self._api_pods.objects:
                existing = await self._create(known)
            if existing is not None:
                self._attach(known, existing)

    def _attach(self, known: StaticPod, mirror: JSON) -> None:
        worker, target = self._workers.get(known.hash), pod_ref(mirror)
        if worker is not None and worker.reporter.target != target:
            worker.reporter.retarget(target, mirror.get("status") or {})
        elif worker is not None:
            worker.reporter.observe(mirror)

    async def _create(self, known: StaticPod) -> JSON:
        mirror = copy.deepcopy(known.pod)
        meta = mirror["metadata"]
        del meta["uid"]
        meta["annotations"][MIRROR_ANNOTATION] = known.hash
        node = self._node()["metadata"]
        if node.get("uid"):
            meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": node["name"], "uid": node["uid"],
                                        "controller": True}]
        return await self._client.create(resource_path("", "v1", "pods", known.key[0]), mirror)

    async def _delete(self, mirror: JSON) -> None:
        ref = pod_ref(mirror)
        try:
            await self._client.delete(resource_path("", "v1", "pods", ref.namespace, ref.name),
                                      {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                                       "preconditions": {"uid": ref.uid}})
        except NotFound:
            return
