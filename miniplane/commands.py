"""What the short commands do: up, down, kubeconfig, version.

My job: call `launch` and others, and say what happened. Rule: progress goes to stderr, results to stdout.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from certs import kubeconfig
from certs.errors import CertsError
from miniplane import __version__, launch
from miniplane.control import is_running
from miniplane.errors import MiniplaneError, StartError
from miniplane.state import Options, StateDir, context_name


def up(state: StateDir, given: dict[str, Any], options: argparse.Namespace) -> int:
    begun = time.monotonic()

    def report(line: str) -> None:
        if not options.quiet:
            print(f" {time.monotonic() - begun:5.2f}s  {line}", file=sys.stderr, flush=True)

    try:
        cluster = launch.up(state, given, report, options.timeout)
    except (StartError, KeyboardInterrupt):
        if is_running(state):
            print("the cluster goes on trying: `miniplane status`, `miniplane logs`, `miniplane down`", file=sys.stderr)
        raise
    if options.json:
        print(json.dumps(_whereabouts(cluster)))
    elif not options.quiet:
        print(_farewell(cluster, time.monotonic() - begun))
    return 0


def _whereabouts(cluster: launch.Cluster) -> dict[str, Any]:
    return {
        "name": cluster.record.options.name,
        "url": cluster.url,
        "kubeconfig": str(cluster.kubeconfig),
        "stateDir": str(cluster.state.path),
        "nodes": cluster.record.options.nodes,
        "wasRunning": cluster.was_running,
    }


def _farewell(cluster: launch.Cluster, seconds: float) -> str:
    path = _short_path(cluster.kubeconfig)
    state = "was running already" if cluster.was_running else f"ready in {seconds:.1f} s"
    return f"miniplane {state}. Try: kubectl --kubeconfig {path} get nodes"


def _short_path(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def down(state: StateDir, purge: bool) -> int:
    was_running = launch.down(state)
    if purge:
        launch.purge(state)
    print("everything has ended" if was_running else "nothing was running", file=sys.stderr)
    return 0


def print_kubeconfig(state: StateDir) -> int:
    print(_admin(state).decode(), end="")
    return 0


def merge_kubeconfig(state: StateDir) -> int:
    target = _personal_kubeconfig()
    try:
        admin = kubeconfig.parse(_admin(state), state.path / "admin.conf")
        backup = kubeconfig.merge(target, admin)
    except (CertsError, OSError) as error:
        raise MiniplaneError(str(error)) from error
    saved = f" (what it was: {backup})" if backup else ""
    print(f"switched to context {admin.current_context!r} in {target}{saved}", file=sys.stderr)
    return 0


def remove_kubeconfig(state: StateDir) -> int:
    record = state.read_record()
    context, target = context_name(record.options if record else Options()), _personal_kubeconfig()
    try:
        removed = kubeconfig.remove(target, context)
    except (CertsError, OSError) as error:
        raise MiniplaneError(str(error)) from error
    print(f"context {context!r} {'removed from' if removed else 'is not in'} {target}", file=sys.stderr)
    return 0


def _admin(state: StateDir) -> bytes:
    state.require_record()
    try:
        return (state.path / "admin.conf").read_bytes()
    except OSError as error:
        raise MiniplaneError(f"{state.path / 'admin.conf'}: {error.strerror}") from error


def _personal_kubeconfig() -> Path:
    """kubectl's rule: the first file of $KUBECONFIG, else ~/.kube/config."""
    listed = [entry for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def version(as_json: bool) -> int:
    libraries = {name: _version_of(name) for name in ("aiohttp", "cryptography", "asyncssh", "h2", "orjson", "uvloop")}
    if as_json:
        print(json.dumps({"miniplane": __version__, "python": platform.python_version(), "libraries": libraries}))
        return 0
    print(f"miniplane {__version__} (Python {platform.python_version()}, {platform.system()} {platform.release()})")
    print("  " + ", ".join(f"{name} {number}" for name, number in libraries.items()))
    return 0


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
