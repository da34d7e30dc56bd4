"""What a client needs out of a kubeconfig: where the API server is and what to show it.

I read the file and the files it names, and say when one of them changed. `certs.kubeconfig` writes such files and
knows the whole format; a client needs only the current context.
"""

import base64
import os
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from wire.tls import Stamp, client_context, stamp

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover - PyYAML without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


class InvalidKubeconfig(ValueError):
    """A kubeconfig that can not be used; says which file and what is missing."""


@dataclass(frozen=True, slots=True)
class Access:
    """The current context of one kubeconfig, resolved."""

    host: str
    port: int
    scheme: str
    server_name: str
    prefix: str
    ca_file: str | None
    ca_data: str | None
    verify: bool
    cert: str | bytes | None
    key: str | bytes | None
    token: str | None
    token_file: str | None
    files: tuple[str, ...]

    def stamp(self) -> Stamp:
        return stamp(*self.files)

    @property
    def credentials(self) -> str:
        """What kind of credentials are shown to the server."""
        kinds = (("client certificate", self.cert), ("bearer token", self.token or self.token_file))
        return ", ".join(kind for kind, value in kinds if value) or "none"

    def ssl_context(self) -> Any:
        """The context for dialing, or None for plain HTTP."""
        if self.scheme == "http":
            return None
        if isinstance(self.cert, bytes) or isinstance(self.key, bytes):
            return self._context_from_memory()
        return client_context(self.ca_file, self.cert, self.key, self.verify, self.ca_data)

    def _context_from_memory(self) -> Any:
        # The ssl module loads keys from paths only. A memory file keeps the key off the disk.
        with _MemoryFile(_content(self.cert)) as cert, _MemoryFile(_content(self.key)) as key:
            return client_context(self.ca_file, cert.path, key.path, self.verify, self.ca_data)

    def bearer_token(self) -> str | None:
        if self.token_file is not None:
            return Path(self.token_file).read_text().strip()
        return self.token


def load_access(path: str | PathLike[str]) -> Access:
    """Read the current context. Raises InvalidKubeconfig."""
    where = os.fspath(path)
    try:
        with open(where, encoding="utf-8") as file:
            config = yaml.load(file, _Loader)
    except (OSError, yaml.YAMLError) as error:
        raise InvalidKubeconfig(f"kubeconfig {where}: {error}") from error
    try:
        context = _named(config["contexts"], config["current-context"], "context")
        cluster = _named(config["clusters"], context["cluster"], "cluster")
        user = _named(config["users"], context["user"], "user") if context.get("user") else {}
        return _access(where, cluster, user)
    except (KeyError, TypeError) as error:
        raise InvalidKubeconfig(f"kubeconfig {where}: no {error}") from error


def _named(entries: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    for entry in entries or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry[kind]
            return found
    raise KeyError(f"{kind} {name!r}")


def _access(where: str, cluster: dict[str, Any], user: dict[str, Any]) -> Access:
    folder = os.path.dirname(os.path.abspath(where))

    def file_of(entry: dict[str, Any], key: str) -> str | None:
        return os.path.join(folder, entry[key]) if entry.get(key) else None

    server = urlsplit(cluster["server"])
    if server.scheme not in ("http", "https") or not server.hostname:
        raise InvalidKubeconfig(f"kubeconfig {where}: server {cluster['server']!r} is no http(s) URL")
    ca_data, ca_file = cluster.get("certificate-authority-data"), file_of(cluster, "certificate-authority")
    cert = _inline_or_file(user, "client-certificate", file_of)
    key = _inline_or_file(user, "client-key", file_of)
    token_file = file_of(user, "tokenFile")
    named = [where, ca_file, cert, key, token_file]
    return Access(
        host=server.hostname,
        port=server.port or (443 if server.scheme == "https" else 80),
        scheme=server.scheme,
        server_name=cluster.get("tls-server-name") or server.hostname,
        prefix=server.path.rstrip("/"),
        ca_file=None if ca_data else ca_file,
        ca_data=base64.b64decode(ca_data).decode("ascii") if ca_data else None,
        verify=not cluster.get("insecure-skip-tls-verify", False),
        cert=cert,
        key=key,
        token=user.get("token"),
        token_file=token_file,
        files=tuple(name for name in named if isinstance(name, str)),
    )


def _inline_or_file(user: dict[str, Any], name: str, file_of: Any) -> str | bytes | None:
    if data := user.get(f"{name}-data"):
        return base64.b64decode(data)
    path: str | None = file_of(user, name)
    return path


def _content(value: str | bytes | None) -> bytes:
    if isinstance(value, str):
        return Path(value).read_bytes()
    return value or b""


class _MemoryFile:
    """Bytes under a path for the time of a `with`, in memory where the system has memfd."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.path = ""

    def __enter__(self) -> "_MemoryFile":
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("wire-credential")
            os.write(self._fd, self._content)
            self.path = f"/proc/self/fd/{self._fd}"
        else:  # pragma: no cover - not Linux
            self._fd, self.path = tempfile.mkstemp()
            os.write(self._fd, self._content)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        if not self.path.startswith("/proc/"):  # pragma: no cover - not Linux
            os.unlink(self.path)
