"""A scene on the terminal: what you see beside what the network has, and what it comes to.

My job: lines. Colour only on a terminal (`terminal.Paint`); every line also goes to the recording, if there is one.
Neighbours: `scene` is what is shown; `recording` writes asciinema's file.
"""

import shutil
import textwrap
import time
from collections.abc import Callable
from typing import Final

from miniplane.demo.attacker import CLIENT_STREAMS, POD_STREAMS, Account
from miniplane.demo.scene import Act, Scene, Step
from miniplane.terminal import Paint, byte_count, padded, table

WIDEST: Final = 140
NARROWEST: Final = 72
#: Of what was said, so much is shown; the counts at the end are of all of it.
LONGEST: Final = 210
#: fact → what it is called, in the order of the last table. Shown only where some act has any.
COUNTED: Final = {
    "connections": "connections the attacker got",
    "handshakesRefused": "of which the caller refused",
    "bytesOfPodData": "bytes of pods' data it read",
    "bytesOfClientData": "bytes of yours it read",
    "clientCredentials": "credentials it was shown",
    "commandsTyped": "commands it typed into your shell",
    "answersForged": "answers it changed",
    "bytesPassed": "encrypted bytes it watched pass",
    "secretsSeenPassing": "of your data in them",
}
ALWAYS: Final = ("bytesOfPodData", "clientCredentials")


class Screen:
    """The stage of a person. Lives as long as the scene."""

    def __init__(self, write: Callable[[str], None], paint: Paint, columns: int | None = None) -> None:
        self._write = write
        self._paint = paint
        columns = columns or shutil.get_terminal_size((100, 24)).columns
        self._columns = max(NARROWEST, min(columns, WIDEST)) - 1
        self._left = (self._columns - 7) // 2
        self._right = self._columns - 7 - self._left
        self._acts = 0
        self._began = time.monotonic()

    def opens(self, scene: Scene) -> None:
        paint = self._paint
        self._line()
        self._line(paint(scene.title, "bold"))
        for line in textwrap.wrap(scene.text, self._columns - 2):
            self._line(f"  {line}")
        self._line(f"  {paint(scene.link, 'blue')}")
        self._line()
        self._line(f"  {scene.picture.replace('MALLORY', paint('MALLORY', 'red', 'bold'))}")

    def waits(self, what: str) -> None:
        self._line()
        self._line(self._paint(f"  … starting {what}", "dim"))

    def begins(self, act: Act) -> None:
        paint = self._paint
        self._acts += 1
        self._line()
        self._line(f"{paint(str(self._acts), 'bold')}  {paint(act.setting, 'bold')}")
        left, right = padded(paint("what you see", "dim"), self._left), paint("what the attacker has from it", "dim")
        self._line(f"   {left} │ {right}")

    def happened(self, step: Step) -> None:
        paint = self._paint
        left = [paint(line, "bold") for line in textwrap.wrap(f"$ {step.said.command}", self._left)]
        shown = _shortened(step.said.output)
        colour = () if step.said.exit_code == 0 else ("yellow",)
        for line in shown.splitlines() or [""]:
            left += [paint(part, *colour) for part in textwrap.wrap(line, self._left) or [""]]
        right = [line for words, style in gains(step.account) for line in self._wrapped(words, style)]
        for number in range(max(len(left), len(right))):
            here = left[number] if number < len(left) else ""
            there = right[number] if number < len(right) else ""
            self._line(f"   {padded(here, self._left)} │ {there}".rstrip())

    def _wrapped(self, words: str, style: str) -> list[str]:
        lines = textwrap.wrap(words, self._right, subsequent_indent="  ") or [""]
        return [self._paint(line, style) for line in lines]

    def closes(self, scene: Scene, acts: list[Act]) -> None:
        paint = self._paint
        facts = [act.facts() for act in acts]
        rows = [["", *(paint(f"{number}", "bold") for number in range(1, len(acts) + 1))]]
        for name, words in COUNTED.items():
            counts = [fact[name] for fact in facts]
            if any(counts) or name in ALWAYS:
                bad = name not in ("connections", "handshakesRefused", "bytesPassed")
                rows.append([words, *(_count(paint, name, count, bad) for count in counts)])
        self._line()
        for line in table(rows):
            self._line(f"   {line}")
        self._line()
        for line in textwrap.wrap(scene.lesson, self._columns - 3):
            self._line(f"   {line}")
        self._line(paint(f"   {time.monotonic() - self._began:.1f} s; nothing of it is left on this machine.", "dim"))

    def _line(self, text: str = "") -> None:
        self._write(text + "\n")


def _count(paint: Paint, name: str, count: int, bad: bool) -> str:
    text = byte_count(count) if name.startswith("bytes") else str(count)
    return paint(text, ("red" if count else "green") if bad else "dim")


def gains(account: Account) -> list[tuple[str, str]]:
    """What the attacker has from one step, in words with a colour."""
    found: list[tuple[str, str]] = []
    refused = len(account.of("refused"))
    if refused:
        times = "" if refused == 1 else f" ({refused} times)"
        found.append((f"✓ nothing: its certificate was refused{times}", "green"))
    if account.of("diverted"):
        found.append(("✓ nothing: its host key was not the one that is pinned", "green"))
    shown = dict.fromkeys(account.credentials)
    found += [(f"✗ was shown: the credentials of {credential}", "red") for credential in shown]
    if typed := account.text(*CLIENT_STREAMS):
        found.append((f"✗ read of yours: {_shortened(typed, 90)!r}", "red"))
    found += [(f"✗ TYPED: {event['text'].strip()}", "red") for event in account.of("typed")]
    if read := account.text(*POD_STREAMS):
        found.append((f"✗ read of the pod's: {_shortened(read, 90)!r}", "red"))
    found += [(f"✗ CHANGED: {event['old']!r} into {event['new']!r}", "red") for event in account.of("forged")]
    if sniffed := account.of("sniffed"):
        passed = sum(event["bytes"] for event in sniffed)
        seen = sum(event["found"] for event in sniffed)
        words = f"saw {byte_count(passed)} pass, your data {f'{seen} times' if seen else 'not'} in it"
        found.append((f"{'✗' if seen else '✓'} {words}", "red" if seen else "green"))
    return found or [("✓ nothing", "green")]


def _shortened(text: str, longest: int = LONGEST) -> str:
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


