"""Kubeconfig files: written for the cluster's own programs, read back, and merged into a person's own.

My job: the file format (clientcmd v1). I own no file but the one being merged into, for as long as its lock is held.
Writing needs no YAML library (JSON strings are YAML scalars); reading imports it when asked.
"""

import base64
import binascii
import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from certs.errors import KubeconfigError
from certs.layout import read, write_private

JSON = dict[str, Any]

# client-go gives up on a held `.lock` at once; kind does, too. A short patience costs nothing.
LOCK_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one context of a kubeconfig says: where, whom to trust, and who we are."""

    server: str
    ca: bytes | None
    client_cert: bytes | None = None
    client_key: bytes | None = None
    token: str | None = None
    client_cert_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """A parsed kubeconfig. `directory` is what its relative paths are relative to."""

    document: JSON
    directory: Path

    @property
    def current_context(self) -> str:
        return str(self.document.get("current-context") or "")

    def credentials(self, context: str = "") -> Credentials:
        """Raises KubeconfigError if the context, its cluster or its user is not there."""
        name = context or self.current_context
        link = self._entry("contexts", "context", name)
        cluster = self._entry("clusters", "cluster", str(link.get("cluster")))
        user = self._entry("users", "user", str(link.get("user")))
        cert_file = user.get("client-certificate")
        return Credentials(
            server=str(cluster.get("server") or ""),
            ca=self._data(cluster, "certificate-authority"),
            client_cert=self._data(user, "client-certificate"),
            client_key=self._data(user, "client-key"),
            token=user.get("token"),
            client_cert_file=self.directory / cert_file if cert_file else None,
        )

    def _entry(self, section: str, kind: str, name: str) -> JSON:
        for entry in self.document.get(section) or []:
            if entry.get("name") == name:
                value = entry.get(kind)
                return value if isinstance(value, dict) else {}
        raise KubeconfigError(f"kubeconfig has no {kind} named {name!r}")

    def _data(self, entry: JSON, field: str) -> bytes | None:
        """`<field>-data` wins over the file, as in clientcmd."""
        inline = entry.get(f"{field}-data")
        if inline:
            try:
                return base64.b64decode(inline, validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise KubeconfigError(f"{field}-data is not base64") from error
        file = entry.get(field)
        return read(self.directory / file) if file else None


def load(path: Path) -> Kubeconfig:
    content = read(path)
    if content is None:
        raise KubeconfigError(f"{path}: no such kubeconfig")
    return parse(content, path)


def parse(content: bytes, path: Path) -> Kubeconfig:
    import yaml  # the commands that only write kubeconfigs start without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: ten times faster
    try:
        document = yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise KubeconfigError(f"{path}: not YAML") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig (a mapping was expected)")
    for section in ("clusters", "contexts", "users"):
        entries = document.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise KubeconfigError(f"{path}: {section} is not a list of named entries")
    return Kubeconfig(document, path.parent)


@dataclass(frozen=True, slots=True)
class Entry:
    """One cluster, one user, and the context that joins them: all that this project's kubeconfigs hold."""

    name: str
    user: str
    server: str
    ca: bytes
    credentials: JSON

    @classmethod
    def with_certificate(cls, name: str, user: str, server: str, ca: bytes, cert: bytes, key: bytes) -> "Entry":
        data = {"client-certificate-data": _base64(cert), "client-key-data": _base64(key)}
        return cls(name, user, server, ca, data)

    @classmethod
    def with_files(cls, name: str, user: str, server: str, ca: bytes, cert: Path, key: Path) -> "Entry":
        return cls(name, user, server, ca, {"client-certificate": str(cert), "client-key": str(key)})

    @classmethod
    def with_token(cls, name: str, user: str, server: str, ca: bytes, token: str) -> "Entry":
        return cls(name, user, server, ca, {"token": token})

    def document(self) -> JSON:
        cluster = {"certificate-authority-data": _base64(self.ca), "server": self.server}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": self.user}}],
            "current-context": self.name,
            "preferences": {},
            "users": [{"name": self.user, "user": self.credentials}],
        }


def render(entry: Entry) -> bytes:
    """The kubeconfig of one entry as YAML text."""
    return ("\n".join(_yaml_lines(entry.document(), "")) + "\n").encode()


def write(path: Path, entry: Entry) -> None:
    write_private(path, render(entry))


def merge(into: Path, cluster: Kubeconfig) -> Path | None:
    """Put `cluster`'s entries into the kubeconfig at `into` and make its context the current one.

    Entries of the same names are replaced, others kept. Returns where the former content was saved, None if there was
    none or nothing changed.
    """
    with _locked(into):
        before = read(into)
        target = parse(before, into).document if before is not None else {"apiVersion": "v1", "kind": "Config"}
        wanted = _merged(target, cluster.document)
        if before is not None and wanted == target:
            return None
        backup = _back_up(into) if before is not None else None
        write_private(into.resolve(), _dump(wanted))
        return backup


def remove(path: Path, context: str) -> bool:
    """Take a context, its cluster and its user out of a kubeconfig. False if it was not there."""
    with _locked(path):
        content = read(path)
        document: JSON = parse(content, path).document if content is not None else {}
        names = [entry.get("context") for entry in document.get("contexts") or [] if entry.get("name") == context]
        if not names:
            return False
        link = names[0] or {}
        gone = {"contexts": context, "clusters": link.get("cluster"), "users": link.get("user")}
        for section in gone:
            document[section] = [entry for entry in document.get(section) or [] if entry.get("name") != gone[section]]
        if document.get("current-context") == context:
            document["current-context"] = ""
        write_private(path.resolve(), _dump(document))
        return True


def _merged(target: JSON, source: JSON) -> JSON:
    merged: JSON = {"apiVersion": "v1", "kind": "Config"} | target
    for section in ("clusters", "contexts", "users"):
        new = {entry["name"]: entry for entry in source.get(section) or []}
        old = list(target.get(section) or [])
        kept = [new.pop(entry.get("name"), entry) for entry in old]
        merged[section] = kept + list(new.values())
    merged["current-context"] = source.get("current-context")
    return merged


def _dump(document: JSON) -> bytes:
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def _back_up(path: Path) -> Path:
    backup = path.with_name(f"{path.name}.before-miniplane")
    shutil.copy2(path, backup)
    return backup


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """client-go's lock: `<file>.lock`, created exclusively (clientcmd `lockFile`)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock, deadline = path.with_name(f"{path.name}.lock"), time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise KubeconfigError(f"{lock} is held by another program; remove it if none is running") from None
            time.sleep(0.05)
        except OSError as error:
            raise KubeconfigError(f"write {lock}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _yaml_lines(value: JSON, indent: str) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, list):
            yield f"{indent}{key}:"
            for element in item:
                first, *rest = _yaml_lines(element, indent + "  ")
                yield f"{indent}- {first[len(indent) + 2 :]}"
                yield from rest
        elif isinstance(item, dict) and item:
            yield f"{indent}{key}:"
            yield from _yaml_lines(item, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(item)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
