"""What isolation this machine allows, found by trying it.

My job: start a throw-away container at each level, best first, and look from inside whether it holds. I own nothing
afterwards. `process` calls me once, when the runtime starts; the words go into the node's condition and the log.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from minikubelet.runtime import launchspec
from minikubelet.runtime.execution import null_input
from minikubelet.runtime.interface import Capabilities, ContainerSpec, Mount, PodRef
from minikubelet.runtime.launching import Launcher, LaunchFailed
from minikubelet.runtime.launchspec import Isolation
from minikubelet.runtime.streams import PipeSource, output_pipe

PROBE_POD = PodRef("", "probe", "probe")
PROBE_SECONDS = 10.0
SEEN = b"seen"


def levels(*, is_root: bool) -> list[Isolation]:
    """Best first. Root can do without a user namespace and then has real users; others need one for any mount."""
    found = []
    for user_namespace in (False, True) if is_root else (True,):
        for own_pids in (True, False):
            found.append(Isolation(True, own_pids, user_namespace, is_root, overlay=False))
    return found


def plain(*, is_root: bool) -> Isolation:
    return Isolation(mounts=False, own_pids=False, user_namespace=False, is_root=is_root, overlay=False)


async def probe(launcher: Launcher, root_dir: Path) -> tuple[Isolation, list[str]]:
    """The best level that works, and why the better ones do not."""
    is_root = os.geteuid() == 0
    refused: list[str] = []
    for level in levels(is_root=is_root):
        try:
            await _try(launcher, root_dir, level, overlay=False)
        except LaunchFailed as error:
            refused.append(str(error))
            continue
        return await _with_overlay(launcher, root_dir, level), refused
    return await _plain(launcher, root_dir, is_root=is_root), refused


async def _plain(launcher: Launcher, root_dir: Path, *, is_root: bool) -> Isolation:
    """User 0 of a confined environment may not have the right to become another."""
    level = plain(is_root=is_root)
    spec = ContainerSpec(PROBE_POD, "probe", 0, ("true",))
    try:
        await _first_words(launcher, launchspec.container(spec, level, root_dir, ()))
    except LaunchFailed:
        return plain(is_root=False)
    return level


async def _with_overlay(launcher: Launcher, root_dir: Path, level: Isolation) -> Isolation:
    better = Isolation(level.mounts, level.own_pids, level.user_namespace, level.is_root, overlay=True)
    try:
        await _try(launcher, root_dir, better, overlay=True)
    except LaunchFailed:
        return level
    return better


async def _try(launcher: Launcher, root_dir: Path, level: Isolation, *, overlay: bool) -> None:
    """Raises LaunchFailed unless a volume is seen at a path the host does not have."""
    with tempfile.TemporaryDirectory(dir=root_dir, prefix="probe-") as name:
        directory = Path(name)
        for part in ("upper", "work", "volume", "image"):
            (directory / part).mkdir()
        (directory / "volume" / "file").write_bytes(SEEN)
        # An image holds no program to run; that its root can be set up is what is asked. The host's has `cat`.
        image = directory / "image" if overlay else None
        volume = Mount(directory / "volume", "/probe/volume", read_only=True)
        spec = ContainerSpec(PROBE_POD, "probe", 0, ("cat", "/probe/volume/file"), mounts=(volume,), rootfs=image)
        launch = launchspec.container(spec, level, directory, ())
        if overlay:
            await _root_is_built(launcher, launch)
        elif await _first_words(launcher, launch) != SEEN:
            raise LaunchFailed("a probe container did not see its volume", 0)


async def _root_is_built(launcher: Launcher, launch: dict[str, object]) -> None:
    try:
        await _first_words(launcher, launch)
    except LaunchFailed as failed:
        if failed.step != "exec":
            raise


async def _first_words(launcher: Launcher, launch: dict[str, object]) -> bytes:
    async with _output() as (source, writer):
        stdin = null_input()
        try:
            launched = await launcher.launch(launch, (stdin, writer, writer))
        finally:
            os.close(stdin)
            os.close(writer)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                words = await source.read()
                await launched.wait()
            return words
        except TimeoutError as error:
            raise LaunchFailed("a probe container did not answer", 0) from error
        finally:
            launched.close()


@asynccontextmanager
async def _output() -> AsyncIterator[tuple[PipeSource, int]]:
    reader, writer = output_pipe()
    source = PipeSource(reader)
    try:
        yield source, writer
    finally:
        source.abort()


def capabilities(isolation: Isolation, refused: Sequence[str]) -> Capabilities:
    return Capabilities(
        mounts=isolation.mounts,
        pids=isolation.own_pids,
        users=isolation.user_namespace,
        root=isolation.is_root,
        writable_rootfs=isolation.overlay,
        words=_words(isolation, refused),
    )


def _words(isolation: Isolation, refused: Sequence[str]) -> str:
    if not isolation.mounts:
        because = f" ({refused[-1]})" if refused else ""
        return (
            f"no isolation: this machine allows no namespaces{because}; containers are plain process groups, volumes "
            "are not at their mount paths and host files are as writable as for the person who runs the kubelet"
        )
    parts = ["mount"] + ["PID"] * isolation.own_pids + ["IPC", "UTS"] + ["user"] * isolation.user_namespace
    words = f"containers run in their own {', '.join(parts)} namespaces on the host's network; host files are read-only"
    if not isolation.own_pids:
        words += "; processes of the host are visible"
    if not isolation.overlay:
        words += "; imported images are read-only (no overlay file system)"
    if isolation.is_root and not isolation.user_namespace:
        words += "; the kubelet is root, so containers use the host's user IDs"
    return words
