"""`miniplane status`: the supervisor's view of its processes, and the API server's of itself.

My job: ask both, print a table or JSON, and an exit code that says whether all is well.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from miniplane.apiclient import APIClient, Unreachable
from miniplane.cluster import cluster_url
from miniplane.control import ask
from miniplane.errors import NotRunning
from miniplane.readiness import is_ready
from miniplane.state import Record, StateDir

WELL: Final = 0
DOWN: Final = 3
UNWELL: Final = 4


def status(state: StateDir, as_json: bool) -> int:
    record = state.read_record()
    try:
        seen = ask(state, {"do": "status"})
    except NotRunning as error:
        print(json.dumps({"running": False, "stateDir": str(state.path)}) if as_json else f"{error}")
        return DOWN
    document = {"running": True, "stateDir": str(state.path), **_api(state, record), **_with_memory(seen)}
    print(json.dumps(document) if as_json else _text(document))
    return WELL if _is_well(document) else UNWELL


def _api(state: StateDir, record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"ready": False, "nodes": []}
    url = cluster_url(record)
    try:
        with APIClient.from_kubeconfig(state.path / "admin.conf") as client:
            readyz = client.get("/readyz")
            nodes = client.get("/api/v1/nodes")
    except Unreachable as error:
        return {"url": url, "ready": False, "problem": str(error), "nodes": []}
    items = nodes.json().get("items") or [] if nodes.status == 200 else []
    listed = [{"name": node["metadata"]["name"], "ready": is_ready(node)} for node in items]
    return {"url": url, "ready": readyz.status == 200, "nodes": listed}


def _with_memory(seen: Mapping[str, Any]) -> dict[str, Any]:
    processes = [process | {"pssBytes": pss(process["pid"])} for process in seen["processes"]]
    return {"supervisor": {"pid": seen["pid"], "startedAt": seen["startedAt"], "pssBytes": pss(seen["pid"])},
            "processes": processes}  # fmt: skip


def pss(pid: int | None) -> int | None:
    """Memory that is this process's own, plus its share of what it shares."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


def _is_well(document: Mapping[str, Any]) -> bool:
    running = all(process["state"] == "running" for process in document["processes"])
    return bool(document["ready"]) and running and all(node["ready"] for node in document["nodes"])


def _text(document: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("PROCESS", "STATE", "PID", "SINCE", "RESTARTS", "MEMORY", "LAST EXIT")]
    rows += [_row(process) for process in document["processes"]]
    lines = _columns(rows)
    nodes = ", ".join(f"{node['name']} {'Ready' if node['ready'] else 'NotReady'}" for node in document["nodes"])
    everybody = [document["supervisor"], *document["processes"]]
    total = sum(process["pssBytes"] or 0 for process in everybody)
    api = "ready" if document["ready"] else f"not ready ({document.get('problem', 'see /readyz?verbose')})"
    return "\n".join(
        [
            *lines,
            "",
            f"API server  {document.get('url', '-')}  {api}",
            f"nodes       {nodes or 'none'}",
            f"memory      {total / 2**20:.0f} MiB, the supervisor's included, pods' not",
        ]
    )


def _row(process: Mapping[str, Any]) -> tuple[str, ...]:
    state = process["state"]
    if process["retryAt"]:
        state += f", again in {max(0.0, process['retryAt'] - time.time()):.1f}s"
    memory = f"{process['pssBytes'] / 2**20:.0f} MiB" if process["pssBytes"] else "-"
    last = process["lastExit"] or "-"
    if process["lastExitAt"]:
        last += f", {_ago(process['lastExitAt'])} ago"
    return (process["name"], state, str(process["pid"] or "-"), _ago(process["since"]), str(process["restarts"]),
            memory, last)  # fmt: skip


def _ago(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
