"""The words of the lab: `miniplane paths`, `demo`, `map`.

My job: their arguments; each command's work is imported when it is asked for. `cli` hands me how it adds a command and
finds a cluster.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniplane.state import StateDir

Run = Callable[[argparse.Namespace], int]
Command = Callable[..., argparse.ArgumentParser]
Find = Callable[[argparse.Namespace], StateDir]


def add(commands: Any, command: Command, find: Find) -> None:
    _add_paths(commands, command, find)
    _add_demo(commands, command)
    _add_map(commands, command, find)
    _add_capture(commands, command, find)


def _add_paths(commands: Any, command: Command, find: Find) -> None:
    def run(options: argparse.Namespace) -> int:
        from miniplane.paths import paths

        return paths(find(options), as_json=options.json, fail_on=options.fail_on)

    paths = command(commands, "paths", "who talks to whom in the cluster, by which way, and what protects it", run)
    paths.add_argument("--json", action="store_true", help="every connection with all that is known of it")
    paths.add_argument("--fail-on", choices=("unverified", "plain"),
                       help="exit code 5 if a connection outside a tunnel was no better than this")  # fmt: skip


def _add_demo(commands: Any, command: Command) -> None:
    def run(options: argparse.Namespace) -> int:
        from miniplane.demo import demo

        return demo(options)

    demo = command(commands, "demo", "an attack on a cluster of its own, let through and then not", run, False)
    demo.add_argument("scene", nargs="?", metavar="SCENE", help="which (default: kubelet-ca; see --list)")
    demo.add_argument("--scene", dest="scene_option", metavar="SCENE", help="the same as an option")
    demo.add_argument("--list", action="store_true", help="the scenes, and what each shows")
    demo.add_argument("--map", action="store_true", help="open the live map of each cluster; Enter goes on")
    demo.add_argument("--json", action="store_true", help="the counted facts, for machines")
    demo.add_argument("--record", type=Path, metavar="FILE", help="also keep it as an asciinema recording (v2)")


def _add_map(commands: Any, command: Command, find: Find) -> None:
    def run(options: argparse.Namespace) -> int:
        from miniplane.map import serve_map

        return serve_map(find(options), options.port, opens_browser=not options.no_browser)

    found = command(commands, "map", "a live picture of the connections, in your browser", run)
    found.add_argument("--port", type=int, default=0, metavar="PORT", help="on 127.0.0.1; any free one by default")
    found.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_capture(commands: Any, command: Command, find: Find) -> None:
    def run(options: argparse.Namespace) -> int:
        from miniplane.capture import capture

        return capture(find(options), options.command, options.seconds, options.write, options.look_for)

    capture = command(commands, "capture", "what a packet capture sees of the untrusted network (root, tshark)", run)
    capture.add_argument("--seconds", type=float, default=10.0, metavar="N", help="how long, without a command (10)")
    capture.add_argument("--write", type=Path, metavar="FILE", help="keep the packets (pcapng)")
    capture.add_argument("--look-for", default="", metavar="TEXT", help="exit code 5 if it is readable on the wire")
    capture.add_argument("command", nargs="*", metavar="-- COMMAND", help="capture while this runs")
