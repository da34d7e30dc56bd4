"""The words of the lab: `miniplane paths`, `demo`, `map`.

My job: their arguments; each command's work is imported when it is asked for. `cli` hands me how it adds a command and
finds a cluster.
"""

import argparse
from collections.abc import Callable
from typing import Any

from miniplane.state import StateDir

Run = Callable[[argparse.Namespace], int]
Command = Callable[..., argparse.ArgumentParser]
Find = Callable[[argparse.Namespace], StateDir]


def add(commands: Any, command: Command, find: Find) -> None:
    _add_paths(commands, command, find)


def _add_paths(commands: Any, command: Command, find: Find) -> None:
    def run(options: argparse.Namespace) -> int:
        from miniplane.paths import paths

        return paths(find(options), as_json=options.json, fail_on=options.fail_on)

    paths = command(commands, "paths", "who talks to whom in the cluster, by which way, and what protects it", run)
    paths.add_argument("--json", action="store_true", help="every connection with all that is known of it")
    paths.add_argument("--fail-on", choices=("unverified", "plain"),
                       help="exit code 5 if a connection outside a tunnel was no better than this")  # fmt: skip
