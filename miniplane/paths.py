"""`miniplane paths`: who talks to whom, by which way, and what protects it.

My job: the ledgers of all processes as one table, connections of the same kind in one row. What is shown was read from
live TLS objects, not from configuration. `--fail-on` is for CI: exit code 5 if a connection was less protected than
asked for and no tunnel carried it.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from miniplane import ledgers
from miniplane.ledgers import PROTECTIONS, Entry
from miniplane.state import StateDir
from miniplane.terminal import Paint, byte_count, table

EXPOSED: Final = 5
#: protection → sign, words, colour. The sign and the words say it alone.
SHOWN: Final = {
    "verified": ("✓", "verified", "green"),
    "unverified": ("~", "encrypted, not verified", "yellow"),
    "plain": ("✗", "plain", "red"),
    "none": ("·", "never stood", "dim"),
}
#: --fail-on → protections that fail.
FAILS_ON: Final = {"plain": ("plain",), "unverified": ("plain", "unverified")}
_HEADINGS: Final = ("FROM", "TO", "FOR", "PATH", "PROTECTION", "CREDENTIALS", "BYTES", "STATE")


@dataclass(slots=True)
class Row:
    """Connections that differ in nothing but their bytes and their fate."""

    entry: Entry
    states: dict[str, int]
    transferred: int = 0


def paths(state: StateDir, *, as_json: bool, fail_on: str | None) -> int:
    state.require_record()
    entries = ledgers.read(state)
    if as_json:
        print(json.dumps([{"process": entry.process, **entry.facts} for entry in entries], indent=2))
    else:
        for line in lines(entries, Paint.for_stream()):
            print(line)
    exposed = failing(entries, fail_on) if fail_on else []
    if exposed:
        first = exposed[0]
        _, words, _ = SHOWN[first["protection"]]
        more = f" and {len(exposed) - 1} more" if len(exposed) > 1 else ""
        print(f"miniplane: {first['from']} → {first['to']} ({first['purpose']}): {words}{more}", file=sys.stderr)
        return EXPOSED
    return 0


def failing(entries: Iterable[Entry], fail_on: str) -> list[Entry]:
    return [entry for entry in entries if entry["protection"] in FAILS_ON[fail_on] and entry.is_exposed]


def rows(entries: Iterable[Entry]) -> list[Row]:
    """Least protected first; within that as the processes told it."""
    found: dict[tuple[Any, ...], Row] = {}
    for entry in entries:
        facts = entry.facts
        key = tuple(facts[name] for name in ("from", "to", "purpose", "path", "protection", "credentials"))
        row = found.setdefault((*key, facts["error"]), Row(entry, {}))
        row.states[facts["state"]] = row.states.get(facts["state"], 0) + 1
        row.transferred += facts["bytesIn"] + facts["bytesOut"]
    return sorted(found.values(), key=lambda row: PROTECTIONS.index(row.entry["protection"]))


def lines(entries: list[Entry], paint: Paint) -> list[str]:
    if not entries:
        return ["no connections yet (is the cluster up?)"]
    cells = [[paint(heading, "bold") for heading in _HEADINGS]]
    cells += [_cells(row, paint) for row in rows(entries)]
    return [*table(cells), "", summary(entries, paint)]


def _cells(row: Row, paint: Paint) -> list[str]:
    entry = row.entry
    sign, words, colour = SHOWN[entry["protection"]]
    state = ", ".join(f"{count} {name}" if count > 1 else name for name, count in row.states.items())
    if entry["error"]:
        state = f"{state}: {entry['error']}"
    return [
        entry["from"],
        entry["to"],
        entry["purpose"],
        entry["path"],
        paint(f"{sign} {words}", colour),
        entry["credentials"].removeprefix("client certificate ") if entry["credentials"] != "none" else "–",
        byte_count(row.transferred),
        paint(state, "dim") if "open" not in row.states else state,
    ]


def summary(entries: list[Entry], paint: Paint) -> str:
    counts = {name: sum(entry["protection"] == name for entry in entries) for name in PROTECTIONS}
    said = ", ".join(
        paint(f"{counts[name]} {SHOWN[name][1]}", SHOWN[name][2]) for name in PROTECTIONS[:3] if counts[name]
    )
    exposed = sum(entry.is_exposed for entry in entries)
    verdict = f"{exposed} open to whoever sits on the network" if exposed else "none open to the network"
    return f"{said or 'nothing stood'}; {verdict}."
