"""Archives become root filesystems; hostile ones become errors, and touch nothing outside."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from minikubelet.images.reference import parse
from minikubelet.images.store import ImageStore as KubeletsStore
from miniplane import rootfs
from miniplane.errors import ImageError
from miniplane.images import ImageStore, normalized
from miniplane.rootfs import RootFS

Entry = tuple[str, dict[str, object]]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def special(name: str, kind: bytes, linkname: str = "", mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, linkname, mode
    return info, b""


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.SYMTYPE, target)


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return written.getvalue()


def unpack(root: Path, *layers: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    root.mkdir()
    built = RootFS(root)
    for number, members in enumerate(layers):
        built.apply(io.BytesIO(tar(members)), f"layer {number}")
    return root


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# -- layers


def test_a_later_layer_lies_over_an_earlier_one(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [file("a", b"old"), file("b")], [file("a", b"new")])
    assert (root / "a").read_bytes() == b"new" and tree(root) == {"a", "b"}


def test_a_whiteout_removes_a_file_or_a_whole_folder(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [file("d/a"), file("d/b"), file("e/f/g")], [file("d/.wh.a"), file(".wh.e")])
    assert tree(root) == {"d", "d/b"}


def test_an_opaque_folder_hides_the_lower_layers_only(tmp_path: Path) -> None:
    upper = [file("d/new"), file("d/.wh..wh..opq"), file("d/newer")]
    root = unpack(tmp_path / "r", [file("d/old"), file("d/deep/old")], upper)
    assert tree(root) == {"d", "d/new", "d/newer"}


def test_a_folder_replaces_a_file_and_a_file_a_folder(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [file("a"), file("b/c")], [file("a/x"), file("b")])
    assert tree(root) == {"a", "a/x", "b"}


def test_hard_links_are_the_same_file(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [file("bin/busybox"), special("bin/sh", tarfile.LNKTYPE, "bin/busybox")])
    assert (root / "bin/sh").samefile(root / "bin/busybox")


def test_symlinked_folders_mean_what_they_mean_inside(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [folder("usr/bin"), symlink("bin", "/usr/bin")], [file("bin/sh")])
    assert (root / "usr/bin/sh").exists() and (root / "bin").is_symlink()


def test_set_user_id_is_dropped_and_everything_is_ours_to_read_and_remove(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [file("su", mode=0o4755), file("shadow", mode=0), folder("d", 0o555), file("d/x")])
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "shadow").stat().st_mode) == 0o400
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o755


def test_devices_are_not_made(tmp_path: Path) -> None:
    root = unpack(tmp_path / "r", [special("dev/sda", tarfile.BLKTYPE), special("dev/null", tarfile.CHRTYPE)])
    assert tree(root) == {"dev"}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil", "d/../evil", "./../evil"])
def test_a_path_with_dots_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="outside"):
        unpack(tmp_path / "r", [file(name)])
    assert not (tmp_path / "evil").exists()


def test_an_absolute_path_stays_inside(tmp_path: Path) -> None:
    assert tree(unpack(tmp_path / "r", [file("/etc/passwd")])) == {"etc", "etc/passwd"}


@pytest.mark.parametrize("target", ["../outside", "/{outside}", "../../../../../../{outside}", "x/../../outside"])
def test_writing_through_a_symlink_stays_inside(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    aimed = target.replace("{outside}", str(outside).lstrip("/"))
    unpack(tmp_path / "r", [symlink("link", aimed)], [file("link/evil")])
    assert list(outside.iterdir()) == []


def test_the_same_members_do_escape_a_naive_extraction(tmp_path: Path) -> None:
    """The twin of the test above: the attack is real where nobody looks."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "r").mkdir()
    with tarfile.open(fileobj=io.BytesIO(tar([symlink("link", "../outside"), file("link/evil")]))) as archive:
        archive.extractall(tmp_path / "r", filter="fully_trusted")
    assert (tmp_path / "outside" / "evil").exists()


def test_a_file_over_a_symlink_replaces_it_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = unpack(tmp_path / "r", [symlink("a", "../secret")], [file("a", b"new")])
    assert (tmp_path / "secret").read_bytes() == b"secret" and (root / "a").read_bytes() == b"new"


def test_a_hard_link_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for linkname in ("../secret", str(tmp_path / "secret"), "nowhere"):
        with pytest.raises(ImageError):
            unpack(tmp_path / f"r{len(linkname)}", [special("a", tarfile.LNKTYPE, linkname)])
    (tmp_path / "t").mkdir()
    with pytest.raises(ImageError):
        unpack(tmp_path / "t" / "r", [symlink("up", ".."), special("a", tarfile.LNKTYPE, "up/../secret")])


def test_whiteouts_cannot_remove_outside(tmp_path: Path) -> None:
    (tmp_path / "keep").write_bytes(b"keep")
    for name in (".wh...", ".wh..", "link/.wh.keep"):
        layers = [[symlink("link", "..")], [file(name)]]
        with contextlib.suppress(ImageError):
            unpack(tmp_path / f"r{len(name)}", *layers)
    assert (tmp_path / "keep").exists()


def test_a_circle_of_symlinks_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too many symbolic links"):
        unpack(tmp_path / "r", [symlink("a", "b"), symlink("b", "a"), file("a/x")])


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(ImageError, match="not unpacked"):
        RootFS(tmp_path / "r", left_bytes=10).apply(io.BytesIO(tar([file("a", b"x" * 11)])), "bomb")
    with pytest.raises(ImageError, match="not unpacked"):
        RootFS(tmp_path / "r", left_entries=1).apply(io.BytesIO(tar([file("a"), file("b")])), "bomb")
    assert rootfs.MAX_BYTES > 0


@pytest.mark.parametrize("content", [b"", b"garbage", gzip.compress(b"garbage"), b"\x28\xb5\x2f\xfd1234"])
def test_a_layer_that_is_none_is_an_error(tmp_path: Path, content: bytes) -> None:
    if content == b"":
        return  # an empty stream is an empty tar
    (tmp_path / "r").mkdir()
    with pytest.raises(ImageError, match="layer"):
        RootFS(tmp_path / "r").apply(io.BytesIO(content), "x")


def test_a_truncated_layer_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(tar([file("a", os.urandom(100_000))]))
    (tmp_path / "r").mkdir()
    with pytest.raises(ImageError):
        RootFS(tmp_path / "r").apply(io.BytesIO(whole[: len(whole) // 2]), "x")


# -- archives

CONFIG = {"config": {"Cmd": ["/bin/sh"], "Env": ["A=b"], "WorkingDir": "/w", "Labels": {"x": "y"}}, "rootfs": {}}


def docker_archive(path: Path, tags: list[str] | None, layers: list[bytes], config: object = CONFIG) -> Path:
    names = [f"layer{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": names}]
    members = [file("manifest.json", json.dumps(manifest).encode()), file("config.json", json.dumps(config).encode())]
    path.write_bytes(tar([*members, *(file(name, layer) for name, layer in zip(names, layers, strict=True))]))
    return path


def oci_archive(path: Path, architecture: str = "amd64", break_digest: bool = False) -> Path:
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, media_type: str = "application/x") -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content + (b" " if break_digest else b"")
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    manifest = {"config": blob(json.dumps(CONFIG).encode()), "layers": [blob(gzip.compress(tar([file("hello")])))]}
    inner = blob(json.dumps(manifest).encode()) | {"platform": {"os": "linux", "architecture": architecture}}
    nested = blob(json.dumps({"manifests": [inner]}).encode(), "application/vnd.oci.image.index.v1+json")
    index = {"manifests": [nested | {"annotations": {"io.containerd.image.name": "docker.io/library/hello:1"}}]}
    members = [file("oci-layout", b"{}"), file("index.json", json.dumps(index).encode())]
    path.write_bytes(tar([*members, *(file(f"blobs/sha256/{name}", content) for name, content in blobs.items())]))
    return path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def test_the_kubelet_reads_what_was_imported(store: ImageStore, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", ["busybox:1.36"], [tar([file("bin/sh")])])
    assert store.import_archive(archive) == ["docker.io/library/busybox:1.36"]
    image = KubeletsStore(store.directory).find(parse("busybox:1.36"))
    assert image is not None and (image.rootfs / "bin/sh").exists()
    assert (image.cmd, image.env, image.working_dir) == (("/bin/sh",), (("A", "b"),), "/w")


def test_an_oci_layout_is_imported_for_this_machine(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert store.import_archive(oci_archive(tmp_path / "o.tar")) == ["docker.io/library/hello:1"]
    with pytest.raises(ImageError, match="no image for linux/amd64, only for s390x"):
        store.import_archive(oci_archive(tmp_path / "p.tar", "s390x"))


def test_a_blob_that_is_not_what_its_digest_says_is_refused(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="digest"):
        store.import_archive(oci_archive(tmp_path / "o.tar", break_digest=True))
    assert store.index() == {}


def test_an_image_without_a_name_needs_a_tag(store: ImageStore, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", None, [tar([file("x")])])
    with pytest.raises(ImageError, match="--tag"):
        store.import_archive(archive)
    assert store.import_archive(archive, "mine") == ["docker.io/library/mine:latest"]


def test_removing_one_name_keeps_files_another_has(store: ImageStore, tmp_path: Path) -> None:
    store.import_archive(docker_archive(tmp_path / "a.tar", ["a:1", "b:1"], [tar([file("x")])]))
    folders = lambda: [path for path in store.directory.iterdir() if path.is_dir()]  # noqa: E731
    store.remove("a:1")
    assert len(folders()) == 1 and list(store.index()) == ["docker.io/library/b:1"]
    store.remove("b:1")
    assert folders() == []


def test_a_failed_import_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        store.import_archive(docker_archive(tmp_path / "a.tar", ["a:1"], [tar([file("x")]), b"garbage"]))
    assert store.index() == {} and [path.name for path in store.directory.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"garbage"),
        lambda path: path.write_bytes(tar([file("readme")])),
        lambda path: path.write_bytes(tar([file("manifest.json", b"{")])),
        lambda path: path.write_bytes(tar([file("manifest.json", b"[{}]")])),
        lambda path: path.write_bytes(tar([file("manifest.json", b'[{"Config":"c","Layers":[]}]')])),
        lambda path: docker_archive(path, ["a b"], []),
        lambda path: path.mkdir(),
    ],
)
def test_what_is_no_image_archive_is_an_error(
    store: ImageStore, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "a.tar")
    with pytest.raises(ImageError):
        store.import_archive(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "name",
    ["busybox", "busybox:1", "a/b", "localhost/x", "ghcr.io/a/b:1", "host:5000/x", "a@sha256:00", "index.docker.io/x"],
)
def test_names_are_normalized_as_the_kubelet_does(name: str) -> None:
    assert normalized(name) == str(parse(name))
