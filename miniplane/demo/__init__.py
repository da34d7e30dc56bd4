"""`miniplane demo`: attacks on a cluster of its own, shown and counted.

My job: find the scene, show it, record it, say its facts as JSON. Clusters, attackers and their files end with it.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from miniplane.demo.lab import WATCHED_BY
from miniplane.demo.recording import Recording
from miniplane.demo.scene import Act, Scene, Step
from miniplane.errors import OptionsError
from miniplane.launch import environment
from miniplane.program import python
from miniplane.state import StateDir
from miniplane.terminal import Paint, table


def demo(options: argparse.Namespace) -> int:
    from miniplane.demo.scenes import DEFAULT, SCENES

    if options.list:
        for line in table([(scene.name, scene.title) for scene in SCENES.values()]):
            print(line)
        return 0
    name = options.scene or options.scene_option or DEFAULT
    scene = SCENES.get(name)
    if scene is None:
        raise OptionsError(f"no scene {name!r}; there are {', '.join(SCENES)}")
    # Whoever ends us gets what Ctrl-C gets: clusters, attackers and files go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.map:
        WATCHED_BY.set(_map)
    return _as_json(scene) if options.json else _on_screen(scene, options)


@contextlib.contextmanager
def _map(state: StateDir) -> Iterator[None]:
    """The map of a lab's cluster; the cluster stays until Enter is pressed."""
    argv = (*python("miniplane"), "map", f"--state-dir={state.path}")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()) as process:
        try:
            assert process.stdout is not None
            print(f"   map: {process.stdout.readline().decode().strip()}", file=sys.stderr)
            yield
            if sys.stdin.isatty():
                input("   Enter goes on … ")
        finally:
            process.terminate()


class _Silence:
    """Nobody watches."""

    def begins(self, act: Act) -> None: ...

    def happened(self, step: Step) -> None: ...

    def waits(self, what: str) -> None: ...


def facts(scene: Scene) -> dict[str, object]:
    """Play, and say what was counted."""
    acts = scene.play(_Silence())
    return {
        "scene": scene.name,
        "link": scene.link,
        "acts": [
            {
                "name": act.name,
                "setting": act.setting,
                "facts": act.facts(),
                "steps": [_step(step) for step in act.steps],
            }
            for act in acts
        ],
    }


def _step(step: Step) -> dict[str, object]:
    said = step.said
    heard = step.account.facts()
    return {"command": said.command, "output": said.output, "exitCode": said.exit_code, "attacker": heard}


def _as_json(scene: Scene) -> int:
    print(json.dumps(facts(scene), indent=2))
    return 0


def _on_screen(scene: Scene, options: argparse.Namespace) -> int:
    from miniplane.demo.screen import Screen

    columns, rows = shutil.get_terminal_size((100, 24))
    with contextlib.ExitStack() as stack:
        recording = None
        if options.record:
            recording = stack.enter_context(Recording(options.record, columns, rows, f"miniplane demo {scene.name}"))

        def write(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()
            if recording is not None:
                recording.write(text)

        screen = Screen(write, Paint.for_stream(), columns)
        screen.opens(scene)
        screen.closes(scene, scene.play(screen))
    return 0
