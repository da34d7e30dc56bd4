"""Image names, the store, the built-in programs, and what is said when there is no image."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from minikubelet.images import builtin, users
from minikubelet.images.program import ImageError, Source, find
from minikubelet.images.reference import InvalidReference, normalise, parse
from minikubelet.images.store import ImageStore
from minikubelet.runtime.interface import ContainerSpec, PodRef, SandboxSpec
from minikubelet.runtime.process import ProcessRuntime


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:2", "localhost:5000/app:2"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("app@sha256:ab", "docker.io/library/app@sha256:ab"),
        ("app:1@sha256:ab", "docker.io/library/app:1@sha256:ab"),
    ],
)
def test_names_are_read_as_engines_read_them(name: str, full: str) -> None:
    assert normalise(name) == full
    assert normalise(full) == full


@pytest.mark.parametrize("name", ["", "UPPER", "a//b", "-a", "a b", "a@", ":tag", "http://x/y"])
def test_other_texts_are_invalid(name: str) -> None:
    with pytest.raises(InvalidReference, match="invalid reference format"):
        parse(name)


def imported(directory: Path, **config: object) -> ImageStore:
    (directory / "bb").mkdir(parents=True, exist_ok=True)
    entry = {"rootfs": "bb", "config": config}
    (directory / "index.json").write_text(json.dumps({"images": {"docker.io/library/busybox:latest": entry}}))
    return ImageStore(directory)


def test_imported_image_brings_its_files_and_config(tmp_path: Path) -> None:
    store = imported(tmp_path, Entrypoint=["e"], Cmd=["c"], Env=["A=1=2"], WorkingDir="/w", User="u")
    image = find(store, "busybox", has_command=False)
    assert (image.source, image.rootfs, image.entrypoint, image.cmd) == (
        Source.IMPORTED,
        tmp_path / "bb",
        ("e",),
        ("c",),
    )
    assert (image.env, image.working_dir, image.user) == ((("A", "1=2"),), "/w", "u")


def test_store_sees_what_is_imported_later_and_survives_a_half_written_index(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.list() == []
    imported(tmp_path)
    assert len(store.list()) == 1
    (tmp_path / "index.json").write_text('{"images": {')
    assert len(store.list()) == 1
    (tmp_path / "index.json").unlink()
    assert store.list() == []


def test_root_file_system_outside_the_store_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"images": {"docker.io/library/x:latest": {"rootfs": "../.."}}}))
    assert ImageStore(tmp_path).list() == []


def test_unknown_image_with_a_command_runs_from_the_host(tmp_path: Path) -> None:
    image = find(ImageStore(tmp_path), "nginx:1", has_command=True)
    assert (image.source, image.rootfs, image.id) == (Source.HOST, None, "docker.io/library/nginx:1")


def test_unknown_image_without_a_command_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"miniplane image import.*set `command:`") as info:
        find(ImageStore(None), "nginx", has_command=False)
    assert info.value.reason == "ErrImagePull"
    with pytest.raises(ImageError) as info:
        find(ImageStore(None), "NGINX", has_command=False)
    assert info.value.reason == "InvalidImageName"


def test_built_in_images_go_by_any_tag() -> None:
    for name in ("miniplane.local/echo", "miniplane.local/ticker:v1", "registry.k8s.io/pause:3.10"):
        assert find(ImageStore(None), name, has_command=False).source is Source.BUILTIN


def test_users_are_resolved_by_the_images_own_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:\n")
    (tmp_path / "etc/group").write_text("www:x:33:\n")
    found = [users.resolve(name, tmp_path) for name in ("", "web", "101", "web:www", "7", "7:8")]
    assert [(user.uid, user.gid) for user in found] == [(0, 0), (101, 102), (101, 102), (101, 33), (7, 0), (7, 8)]
    with pytest.raises(users.UnknownUser, match="unable to find user nobody-here"):
        users.resolve("nobody-here", tmp_path)


def test_passwd_that_is_a_link_out_of_the_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(users.UnknownUser):
        users.resolve("daemon", tmp_path)


async def test_built_in_programs_run_in_the_runtime_and_end_when_told(tmp_path: Path) -> None:
    pod = PodRef("d", "p", "u")
    async with ProcessRuntime(tmp_path / "r") as runtime:
        sandbox = await runtime.create_sandbox(SandboxSpec(pod, "p", "127.244.77.1"))
        for name, marker in (("echo", b"listening on 127.244.77.1:"), ("ticker", b"tick 1"), ("sleeper", b"")):
            image = builtin.BUILTIN[f"miniplane.local/{name}"]
            spec = ContainerSpec(
                pod, name, 0, image.entrypoint, env=(("PORT", "0"), ("INTERVAL", "0.05"), ("POD_IP", "127.244.77.1")),
                log_path=tmp_path / name, visible_host_paths=image.visible_host_paths,
            )  # fmt: skip
            container = await runtime.start(spec, sandbox)
            async with asyncio.timeout(10):
                while marker not in (tmp_path / name).read_bytes():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await container.stop(10)).code in (0, 143), name


def test_echo_server_answers_with_what_it_was_asked() -> None:
    command = [sys.executable, "-I", "-S", str(builtin.ECHO_PROGRAM)]
    environment = {"PORT": "0", "POD_IP": "127.0.0.1", "HOSTNAME": "me"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().split()[-1]
            request = urllib.request.Request(f"http://{address}/x?y=1", b"body", {"A": "b"}, method="POST")
            with urllib.request.urlopen(request, timeout=5) as response:
                answer = json.load(response)
        finally:
            server.terminate()
    assert (answer["pod"], answer["method"], answer["path"], answer["body"]) == ("me", "POST", "/x?y=1", "body")
    assert server.returncode == 0
