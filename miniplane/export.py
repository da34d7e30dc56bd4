"""`miniplane export logs`: everything somebody else needs to understand a cluster, and nothing they must not have.

My job: copy logs, pods' logs, status, versions and objects into a folder. Keys, tokens, kubeconfigs and Secrets stay
where they are; what is copied is listed here, not what is left out.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Final

from miniplane.apiclient import APIClient, Unreachable
from miniplane.commands import version
from miniplane.doctor import examine
from miniplane.errors import MiniplaneError
from miniplane.state import StateDir
from miniplane.status import status

# Not secrets, and not what may hold one.
_OBJECTS: Final = {
    "nodes.json": "/api/v1/nodes",
    "pods.json": "/api/v1/pods",
    "events.json": "/api/v1/events",
    "namespaces.json": "/api/v1/namespaces",
    "services.json": "/api/v1/services",
    "leases.json": "/apis/coordination.k8s.io/v1/leases",
    "certificatesigningrequests.json": "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    "readyz.txt": "/readyz?verbose",
    "metrics.txt": "/metrics",
}


def export_logs(state: StateDir, directory: Path) -> int:
    record = state.require_record()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _copy_logs(state, directory)
        (directory / "cluster.json").write_text(json.dumps(record.as_json(), indent=2))
        (directory / "doctor.json").write_text(json.dumps([finding.as_json() for finding in examine()], indent=2))
        (directory / "status.json").write_text(_printed_status(state))
        (directory / "version.json").write_text(_printed_version())
        _export_objects(state, directory / "objects")
    except OSError as error:
        raise MiniplaneError(f"write {error.filename or directory}: {error.strerror}") from error
    print(f"exported to {directory}")
    return 0


def _copy_logs(state: StateDir, directory: Path) -> None:
    for path in sorted(state.logs.glob("*.log*")):
        _copy(path, directory / "logs" / path.name)
    for path in sorted(state.path.glob("nodes/*/log/**/*")):
        if path.is_file():
            _copy(path, directory / path.relative_to(state.path))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
        shutil.copyfile(source, target)


def _printed_status(state: StateDir) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status(state, as_json=True)
    return printed.getvalue()


def _printed_version() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        version(as_json=True)
    return printed.getvalue()


def _export_objects(state: StateDir, directory: Path) -> None:
    """A cluster that is down has no objects to show; its logs are exported all the same."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with APIClient.from_kubeconfig(state.path / "admin.conf") as client:
            for name, path in _OBJECTS.items():
                (directory / name).write_bytes(client.get(path).body)
    except Unreachable as error:
        (directory / "unreachable.txt").write_text(f"{error}\n")
