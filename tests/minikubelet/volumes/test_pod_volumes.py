"""The volumes of a pod: content, modes, updates, failures in the kubelet's words, and no way out of a volume."""

import base64
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikubelet.pods.downward import field_value, resource_value
from minikubelet.pods.expansion import expand
from minikubelet.volumes import atomic, hostpath
from minikubelet.volumes.content import Sources
from minikubelet.volumes.errors import SetUpFailed, SubPathFailed, VolumeError
from minikubelet.volumes.payload import File
from minikubelet.volumes.volumes import Volumes

JSON = dict[str, Any]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class World:
    """ConfigMaps, Secrets and tokens as tests change them."""

    def __init__(self) -> None:
        self.maps: dict[str, JSON] = {"settings": {"data": {"a": "1", "b": "2"}, "binaryData": {"raw": encoded("\0x")}}}
        self.secrets: dict[str, JSON] = {"keys": {"data": {"k": encoded("v")}}}
        self.tokens: list[tuple[str, int]] = []

    def sources(self) -> Sources:
        async def config_map(name: str) -> JSON | None:
            return self.maps.get(name)

        async def secret(name: str) -> JSON | None:
            return self.secrets.get(name)

        async def token(audience: str, seconds: int) -> str:
            self.tokens.append((audience, seconds))
            return f"token-{len(self.tokens)}"

        def resource(pod: JSON, reference: JSON) -> str:
            return resource_value(pod, "", reference, {"cpu": "4"})

        return Sources(config_map, secret, token, field_value, resource)


def pod(*volumes: JSON, **spec: Any) -> JSON:
    metadata = {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "web", "a": 'q"'}}
    containers = [{"name": "c", "resources": {"limits": {"cpu": "250m"}}}]
    return {"metadata": metadata, "spec": {"containers": containers, "volumes": list(volumes), **spec}}


async def made(tmp_path: Path, world: World, *volumes: JSON, **spec: Any) -> tuple[Volumes, JSON]:
    one = pod(*volumes, **spec)
    found = Volumes(one, tmp_path, world.sources(), expand)
    await found.set_up(one)
    return found, one


def mount(volumes: Volumes, **more: Any) -> Path:
    container = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", **more}]}
    (found,) = volumes.mounts(container, {"POD": "p"})
    return found.host_path


def content(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.relative_to(directory).as_posix().startswith("..")
    }


async def test_config_map_shows_every_key_through_the_data_link(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "configMap": {"name": "settings"}})
    directory = mount(volumes)
    assert directory == tmp_path / "volumes" / "kubernetes.io~configmap" / "v"
    assert content(directory) == {"a": "1", "b": "2", "raw": "\0x"}
    assert os.readlink(directory / "a") == "..data/a"
    assert os.readlink(directory / "..data").startswith("..20")
    assert stat.S_IMODE((directory / "a").stat().st_mode) == 0o644


async def test_items_choose_paths_and_modes(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "deep/er", "mode": 0o400}, {"key": "b", "path": "b"}]
    volume = {"name": "v", "configMap": {"name": "settings", "defaultMode": 0o640, "items": items}}
    volumes, _ = await made(tmp_path, World(), volume)
    directory = mount(volumes)
    assert content(directory / "deep") == {"er": "1"} and (directory / "b").read_text() == "2"
    assert stat.S_IMODE((directory / "deep/er").stat().st_mode) == 0o400
    assert stat.S_IMODE((directory / "b").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "settings", "items": [{"key": "x", "path": "x"}]}},
            "configmap references non-existent config key: x",
        ),
        (
            {"secret": {"secretName": "keys", "items": [{"key": "x", "path": "x"}]}},
            "references non-existent secret key: x",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}]}},
            '[configmap "a" not found, secret "b" not found]',
        ),
        ({"nfs": {"server": "x"}}, "no volume plugin matched: nfs"),
        ({"hostPath": {"path": "/etc/passwd", "type": "Directory"}}, None),
    ],
)
async def test_failures_are_in_the_kubelets_words(tmp_path: Path, volume: JSON, why: str | None) -> None:
    with pytest.raises(SetUpFailed) as info:
        await made(tmp_path, World(), {"name": "v", **volume})
    why = why or "hostPath type check failed: /etc/passwd is not a directory"
    assert str(info.value) == f'MountVolume.SetUp failed for volume "v" : {why}'
    assert info.value.event == "FailedMount"


async def test_optional_sources_may_be_missing(tmp_path: Path) -> None:
    parts = [{"configMap": {"name": "none", "optional": True}}, {"secret": {"name": "keys"}}]
    parts.append({"configMap": {"name": "settings", "optional": True, "items": [{"key": "x", "path": "x"}]}})
    volumes, _ = await made(tmp_path, World(), {"name": "v", "projected": {"sources": parts}})
    assert content(mount(volumes)) == {"k": "v"}


async def test_an_update_replaces_all_files_at_once_and_only_if_something_changed(tmp_path: Path) -> None:
    world = World()
    volumes, one = await made(tmp_path, world, {"name": "v", "configMap": {"name": "settings"}})
    directory = mount(volumes)
    before = os.readlink(directory / "..data")
    await volumes.refresh(one)
    assert os.readlink(directory / "..data") == before
    world.maps["settings"] = {"data": {"a": "new", "c": "3"}}
    await volumes.refresh(one)
    assert os.readlink(directory / "..data") != before
    assert content(directory) == {"a": "new", "c": "3"}
    assert sorted(os.listdir(directory)) == sorted(["..data", os.readlink(directory / "..data"), "a", "c"])


async def test_what_cannot_be_refreshed_keeps_its_content_and_the_others_are_refreshed(tmp_path: Path) -> None:
    world = World()
    gone = {"name": "gone", "configMap": {"name": "settings"}}
    volumes, one = await made(tmp_path, world, gone, {"name": "v", "secret": {"secretName": "keys"}})
    del world.maps["settings"]
    world.secrets["keys"] = {"data": {"k": encoded("new")}}
    with pytest.raises(SetUpFailed):
        await volumes.refresh(one)
    assert content(mount(volumes)) == {"k": "new"}
    assert (tmp_path / "volumes" / "kubernetes.io~configmap" / "gone" / "a").read_text() == "1"


async def test_service_account_volume_has_token_ca_and_namespace(tmp_path: Path) -> None:
    world = World()
    world.maps["kube-root-ca.crt"] = {"data": {"ca.crt": "PEM"}}
    parts: list[JSON] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = {"name": "v", "projected": {"defaultMode": 0o644, "sources": parts}}
    volumes, _ = await made(tmp_path / "1", world, volume)
    assert content(mount(volumes)) == {"token": "token-1", "ca.crt": "PEM", "namespace": "default"}
    assert world.tokens == [("", 3607)]
    assert _mode(mount(volumes) / "token") == 0o644
    volumes, _ = await made(tmp_path / "2", world, volume, securityContext={"runAsUser": 1000})
    assert _mode(mount(volumes) / "token") == 0o600
    volumes, _ = await made(tmp_path / "3", world, volume, securityContext={"runAsUser": 1000, "fsGroup": 7})
    assert _mode(mount(volumes) / "token") == 0o640


async def test_downward_api_shows_labels_and_resources(tmp_path: Path) -> None:
    items: list[JSON] = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    volumes, _ = await made(tmp_path, World(), {"name": "v", "downwardAPI": {"items": items}})
    assert content(mount(volumes)) == {"labels": 'a="q\\""\napp="web"', "cpu": "250"}


async def test_unknown_field_is_a_failed_mount(tmp_path: Path) -> None:
    items = [{"path": "x", "fieldRef": {"fieldPath": "spec.nothing"}}]
    with pytest.raises(SetUpFailed, match=r"spec\.nothing"):
        await made(tmp_path, World(), {"name": "v", "downwardAPI": {"items": items}})


async def test_empty_dir_is_open_to_all_and_survives_set_up(tmp_path: Path) -> None:
    volumes, one = await made(tmp_path, World(), {"name": "v", "emptyDir": {}})
    directory = mount(volumes)
    assert _mode(directory) == 0o777
    (directory / "kept").touch()
    await volumes.set_up(one)
    assert os.listdir(directory) == ["kept"]


async def test_fs_group_owns_the_volume_where_we_may(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "emptyDir": {}}, securityContext={"fsGroup": 4321})
    status = mount(volumes).stat()
    if os.geteuid() == 0:
        assert status.st_gid == 4321 and status.st_mode & 0o2000
    assert status.st_mode & 0o777 == 0o777


async def test_tear_down_removes_what_containers_made_unreadable_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    volumes, _ = await made(tmp_path / "pod", World(), {"name": "v", "emptyDir": {}})
    (mount(volumes) / "deep").mkdir()
    (mount(volumes) / "deep" / "file").touch()
    (mount(volumes) / "deep").chmod(0)
    (mount(volumes) / "link").symlink_to(outside)
    await volumes.tear_down()
    assert not (tmp_path / "pod" / "volumes").exists()
    assert _mode(outside) == 0o750
    await volumes.tear_down()


async def test_sub_path_of_a_config_map_is_the_file_itself(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "configMap": {"name": "settings"}})
    path = mount(volumes, subPath="a")
    assert path.read_text() == "1" and not path.is_symlink() and ".." in path.parent.name


async def test_missing_sub_path_becomes_a_directory_and_expressions_are_replaced(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "emptyDir": {}})
    assert mount(volumes, subPathExpr="logs/$(POD)") == tmp_path / "volumes/kubernetes.io~empty-dir/v/logs/p"
    assert mount(volumes, subPath="logs/p").is_dir()


@pytest.mark.parametrize("part", ["../x", "a/../../x", "/etc", "link", "link/passwd", "deep/link"])
async def test_sub_path_never_leaves_the_volume(tmp_path: Path, part: str) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "emptyDir": {}})
    (mount(volumes) / "link").symlink_to("/etc")
    (mount(volumes) / "deep").mkdir()
    (mount(volumes) / "deep" / "link").symlink_to("../../..")
    with pytest.raises(SubPathFailed, match="failed to prepare subPath for volumeMount"):
        mount(volumes, subPath=part)


async def test_link_within_the_volume_is_a_fine_sub_path(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World(), {"name": "v", "emptyDir": {}})
    (mount(volumes) / "real").mkdir()
    (mount(volumes) / "link").symlink_to("real")
    assert mount(volumes, subPath="link") == mount(volumes) / "real"


async def test_mount_of_a_volume_the_pod_has_not_is_an_error(tmp_path: Path) -> None:
    volumes, _ = await made(tmp_path, World())
    with pytest.raises(VolumeError):
        mount(volumes)


def test_host_path_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for kind, good in (("File", "file"), ("Socket", "socket"), ("Directory", ".")):
            assert hostpath.resolve(str(tmp_path / good), kind) == (tmp_path / good).resolve()
            for bad in {"file", "socket", ".", "missing"} - {good}:
                with pytest.raises(hostpath.WrongType, match=r"hostPath type check failed: .* is not a "):
                    hostpath.resolve(str(tmp_path / bad), kind)
    assert hostpath.resolve(str(tmp_path / "new" / "dir"), "DirectoryOrCreate").is_dir()
    assert hostpath.resolve(str(tmp_path / "new" / "file"), "FileOrCreate").is_file()
    assert hostpath.resolve("/dev/null", "CharDevice") == Path("/dev/null")


def test_host_path_is_handed_out_without_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert hostpath.resolve(str(tmp_path / "link"), "Directory") == tmp_path / "real"


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../b", "..data", "..x/y", ""])
def test_atomic_writer_refuses_names_that_are_not_its_own(tmp_path: Path, path: str) -> None:
    with pytest.raises(atomic.UnsafePath):
        atomic.write(tmp_path, {path: File(b"", 0o644)})
    assert os.listdir(tmp_path) == []


NAMES = st.sampled_from(["a", "b", "deep/c", "deep/er/d", ".hidden", "e"])
PAYLOADS = st.dictionaries(NAMES, st.builds(File, st.binary(max_size=5), st.sampled_from([0o600, 0o644])))


@given(st.lists(PAYLOADS, max_size=4))
def test_atomic_writer_shows_exactly_the_last_payload(payloads: list[dict[str, File]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        directory, last = Path(name), None
        for payload in payloads:
            assert atomic.write(directory, payload) == (payload != last)
            last = payload
            seen = {path: File((directory / path).read_bytes(), _mode(directory / path)) for path in payload}
            assert seen == payload
            visible = {entry for entry in os.listdir(directory) if not entry.startswith("..")}
            assert visible == {path.split("/")[0] for path in payload}
            assert len(os.listdir(directory)) == len(visible) + 2


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
