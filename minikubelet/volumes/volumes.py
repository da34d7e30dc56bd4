"""The volumes of one pod: directories under `<pod dir>/volumes`, named as the kubelet names them.

My job: set up, refresh, hand out mounts, tear down. I own `<pod dir>/volumes`, nothing of hostPath volumes. The pod's
worker calls me; blocking file work runs in a thread. Rule: set_up may run again at any time and changes nothing that
is right already.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minikubelet.runtime.interface import Mount
from minikubelet.volumes import atomic, hostpath, subpath
from minikubelet.volumes.content import GATHERED, Sources, gather
from minikubelet.volumes.errors import SetUpFailed, VolumeError

JSON = dict[str, Any]
PLUGINS = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "projected": "kubernetes.io~projected",
    "downwardAPI": "kubernetes.io~downward-api",
}
SUPPORTED = (*PLUGINS, "hostPath")
EMPTY_DIR_MODE = 0o777


class Volumes:
    """Lives from the pod's first sync to its tear_down. `expand` is $(VAR) replacement, for subPathExpr."""

    def __init__(
        self, pod: JSON, pod_dir: Path, sources: Sources, expand: Callable[[str, Mapping[str, str]], str]
    ) -> None:
        self._base = pod_dir.resolve() / "volumes"
        self._sources, self._expand = sources, expand
        self._paths: dict[str, Path] = {}
        self._group = _fs_group(pod)

    async def set_up(self, pod: JSON) -> None:
        """Raises VolumeError for the first volume that cannot be had."""
        for volume in pod["spec"].get("volumes") or ():
            kind = _kind(volume)
            if kind in GATHERED:
                await self._fill(pod, volume, kind)
            else:
                await asyncio.to_thread(self._make, volume, kind)

    async def refresh(self, pod: JSON) -> None:
        """Bring what others own up to date. Raises VolumeError; what could not be had keeps its old content."""
        failed: VolumeError | None = None
        for volume in pod["spec"].get("volumes") or ():
            if (kind := _kind(volume)) in GATHERED:
                try:
                    await self._fill(pod, volume, kind)
                except VolumeError as error:
                    failed = error
        if failed:
            raise failed

    def mounts(self, container: JSON, environment: Mapping[str, str]) -> tuple[Mount, ...]:
        """After set_up. Raises VolumeError."""
        return tuple(self._mount(container, mount, environment) for mount in container.get("volumeMounts") or ())

    async def tear_down(self) -> None:
        """Harmless when nothing is there. The pod's processes must be over."""
        await asyncio.to_thread(_remove, self._base)

    def _mount(self, container: JSON, mount: JSON, environment: Mapping[str, str]) -> Mount:
        name = mount["name"]
        if name not in self._paths:
            raise VolumeError(f'volume "{name}" of container "{container["name"]}" is not set up')
        path = self._paths[name]
        part = mount.get("subPath") or self._expand(mount.get("subPathExpr") or "", environment)
        if part:
            path = subpath.resolve(path, part, mount_name=name, container=container["name"])
        return Mount(path, mount["mountPath"], bool(mount.get("readOnly")))

    async def _fill(self, pod: JSON, volume: JSON, kind: str) -> None:
        content = await gather(pod, volume, self._sources)
        directory = self._base / PLUGINS[kind] / volume["name"]
        try:
            await asyncio.to_thread(self._write, directory, content)
        except (OSError, ValueError) as error:
            raise SetUpFailed(volume["name"], str(error)) from error
        self._paths[volume["name"]] = directory

    def _write(self, directory: Path, content: Any) -> None:
        self._make_directory(directory, EMPTY_DIR_MODE)
        atomic.write(directory, content, self._group)

    def _make(self, volume: JSON, kind: str) -> None:
        name = volume["name"]
        try:
            if kind == "hostPath":
                part = volume["hostPath"]
                self._paths[name] = hostpath.resolve(part["path"], part.get("type") or "")
            else:
                directory = self._base / PLUGINS[kind] / name
                self._make_directory(directory, EMPTY_DIR_MODE)
                self._paths[name] = directory
        except (OSError, hostpath.WrongType) as error:
            raise SetUpFailed(name, str(error)) from error

    def _make_directory(self, directory: Path, mode: int) -> None:
        if directory.is_dir():
            return
        directory.mkdir(parents=True)
        directory.chmod(mode)
        if self._group is not None:
            with contextlib.suppress(PermissionError):  # without root there is no group to give it to
                os.chown(directory, -1, self._group)
                directory.chmod(mode | 0o2070)


def _kind(volume: JSON) -> str:
    """Raises SetUpFailed for kinds this node has no plugin for. No source at all means emptyDir, as upstream."""
    kinds = [key for key in volume if key != "name"]
    for kind in kinds:
        if kind in SUPPORTED:
            return kind
    if not kinds:
        return "emptyDir"
    raise SetUpFailed(volume["name"], f"no volume plugin matched: {kinds[0]}")


def _fs_group(pod: JSON) -> int | None:
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def _remove(base: Path) -> None:
    """Containers may have left directories without permissions; open them on the way. Never follows a link."""
    for directory, names, _ in os.walk(base):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(base, ignore_errors=True)
