"""Image archives: what `docker save` writes, and OCI layouts in a tar.

My job: find the images in an archive, each with its names, configuration and layers. Reads only; `rootfs` unpacks.
Rule: what an archive says about itself is checked (digests, sizes) or not used.
"""

import hashlib
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from miniplane.errors import ImageError

# Manifests and configurations are a few kB; layers are never read whole.
MAX_JSON: Final = 8 * 2**20
MAX_LAYERS: Final = 512
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEXES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
# What runs a container, of all that a configuration may hold.
_CONFIG_FIELDS: Final = ("Entrypoint", "Cmd", "Env", "WorkingDir", "User", "ExposedPorts")


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive."""

    references: tuple[str, ...]
    identity: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]


class ImageArchive:
    """An opened archive. `with` it."""

    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self._tar, self._path = tar, path
        self._members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            return cls(tarfile.open(path), path)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror or error}") from error
        except (tarfile.TarError, EOFError) as error:
            raise ImageError(f"{path}: not a tar archive ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def images(self) -> Iterator[ArchivedImage]:
        """Raises ImageError. Archives of today's docker are both kinds; the older one also has the names."""
        if "manifest.json" in self._members:
            yield from self._docker_images()
        elif "index.json" in self._members and "oci-layout" in self._members:
            yield from self._oci_images()
        else:
            raise ImageError(f"{self._path}: neither `docker save` (manifest.json) nor an OCI layout (index.json)")

    def blob(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        content = self._tar.extractfile(member) if member is not None else None
        if content is None:
            raise ImageError(f"{self._path}: {name} is missing")
        return content

    # -- docker save

    def _docker_images(self) -> Iterator[ArchivedImage]:
        manifest = self._json("manifest.json")
        if not isinstance(manifest, list):
            raise ImageError(f"{self._path}: manifest.json is not a list")
        for entry in manifest:
            try:
                config, layers, tags = entry["Config"], entry["Layers"], entry.get("RepoTags") or []
            except (KeyError, TypeError, AttributeError) as error:
                raise ImageError(f"{self._path}: manifest.json lacks {error}") from error
            yield self._image(tuple(str(tag) for tag in tags), str(config), [str(layer) for layer in layers])

    # -- OCI layout

    def _oci_images(self) -> Iterator[ArchivedImage]:
        for descriptor in self._list(self._json("index.json"), "manifests"):
            annotations = descriptor.get("annotations") or {}
            named = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
            yield self._oci_image((str(named),) if named else (), descriptor)

    def _oci_image(self, references: tuple[str, ...], descriptor: Mapping[str, Any]) -> ArchivedImage:
        manifest = self._verified_json(descriptor)
        if descriptor.get("mediaType") in _INDEXES or "manifests" in manifest:
            return self._oci_image(references, self._ours(self._list(manifest, "manifests")))
        config = manifest.get("config")
        if not isinstance(config, dict):
            raise ImageError(f"{self._path}: a manifest without config")
        layers = [self._blob_name(layer) for layer in self._list(manifest, "layers")]
        return self._image(references, self._blob_name(config), layers)

    def _ours(self, manifests: list[dict[str, Any]]) -> dict[str, Any]:
        """The manifest for this machine among those for several."""
        wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
        for descriptor in manifests:
            there = descriptor.get("platform") or {}
            if there.get("os") == "linux" and there.get("architecture") == wanted:
                return descriptor
        there_are = sorted({str((one.get("platform") or {}).get("architecture")) for one in manifests})
        raise ImageError(f"{self._path}: no image for linux/{wanted}, only for {', '.join(there_are)}")

    def _blob_name(self, descriptor: Mapping[str, Any]) -> str:
        algorithm, _, digest = str(descriptor.get("digest")).partition(":")
        if algorithm != "sha256" or not _is_hex(digest):
            raise ImageError(f"{self._path}: digest {descriptor.get('digest')!r} is not sha256")
        return f"blobs/sha256/{digest}"

    # -- both

    def _image(self, references: tuple[str, ...], config_name: str, layers: list[str]) -> ArchivedImage:
        if len(layers) > MAX_LAYERS:
            raise ImageError(f"{self._path}: {len(layers)} layers; at most {MAX_LAYERS} are unpacked")
        content = self._bytes(config_name)
        document = self._parsed(content, config_name)
        config = document.get("config") if isinstance(document, dict) else None
        kept = {name: config[name] for name in _CONFIG_FIELDS if config and config.get(name)}
        return ArchivedImage(references, hashlib.sha256(content).hexdigest(), kept, tuple(layers))

    def _verified_json(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        name = self._blob_name(descriptor)
        content = self._bytes(name)
        if hashlib.sha256(content).hexdigest() != name.rpartition("/")[2]:
            raise ImageError(f"{self._path}: {name} does not have the digest it is named after")
        document = self._parsed(content, name)
        if not isinstance(document, dict):
            raise ImageError(f"{self._path}: {name} is not an object")
        return document

    def _json(self, name: str) -> Any:
        return self._parsed(self._bytes(name), name)

    def _bytes(self, name: str) -> bytes:
        content = self.blob(name).read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise ImageError(f"{self._path}: {name} is longer than {MAX_JSON} bytes")
        return content

    def _parsed(self, content: bytes, name: str) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{self._path}: {name} is not JSON") from error

    def _list(self, document: Any, field: str) -> list[dict[str, Any]]:
        items = document.get(field) if isinstance(document, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ImageError(f"{self._path}: {field} is not a list of objects")
        return items


def _is_hex(digest: str) -> bool:
    return len(digest) == 64 and all(character in "0123456789abcdef" for character in digest)
