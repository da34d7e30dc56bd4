"""How a scene looks: aligned, within the terminal, plain where there is no terminal; and as a recording."""

import json
from pathlib import Path

import pytest

from miniplane.cli import main
from miniplane.demo.attacker import Account
from miniplane.demo.lab import Said
from miniplane.demo.recording import Recording
from miniplane.demo.scene import Act, Step
from miniplane.demo.scenes import SCENES
from miniplane.demo.screen import Screen
from miniplane.terminal import Paint, plain, width

HEARD = Account(({"event": "connection"}, {"event": "handshake", "client": "kube-apiserver-kubelet-client"},
                 {"event": "read", "stream": "stdin", "bytes": 3, "text": "ls\n"},
                 {"event": "typed", "text": "id\n"}))  # fmt: skip
REFUSED = Account(({"event": "connection"}, {"event": "refused", "reason": "it hung up"}))


def shown(columns: int, is_on: bool) -> list[str]:
    written: list[str] = []
    screen, scene = Screen(written.append, Paint(is_on), columns), SCENES["kubelet-ca"]
    screen.opens(scene)
    acts = [Act("unverified", "not set", [Step(Said("kubectl logs shop", "order 1 " * 30, 0), HEARD)]),
            Act("verified", "set", [Step(Said("kubectl logs shop", "tls: failed", 1), REFUSED)])]  # fmt: skip
    for act in acts:
        screen.begins(act)
        screen.happened(act.steps[0])
    screen.closes(scene, acts)
    return "".join(written).splitlines()


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_columns_stay_within_the_terminal_and_under_each_other(columns: int) -> None:
    lines = [line for line in shown(columns, is_on=True) if "https://" not in line]
    assert max(width(line) for line in lines) < columns
    assert len({plain(line).index("│") for line in lines if "│" in line}) == 1


def test_without_colour_the_words_say_it_all() -> None:
    text = "\n".join(shown(100, is_on=False))
    assert "\x1b" not in text
    assert "✗ TYPED: id" in text
    assert "✓ nothing: its certificate was refused" in text
    assert text.splitlines() == [plain(line) for line in shown(100, is_on=True)]


def test_the_last_table_compares_the_acts() -> None:
    rows = [line.split() for line in shown(100, is_on=False)]
    assert ["credentials", "it", "was", "shown", "1", "0"] in rows
    assert ["commands", "it", "typed", "into", "your", "shell", "1", "0"] in rows


def test_a_recording_is_asciinema_version_2(tmp_path: Path) -> None:
    with Recording(tmp_path / "a.cast", 100, 24, "t") as recording:
        recording.write("one\n")
        recording.write("two\n")
    header, *events = [json.loads(line) for line in (tmp_path / "a.cast").read_text().splitlines()]
    assert (header["version"], header["width"], header["height"]) == (2, 100, 24)
    assert [(kind, text) for _, kind, text in events] == [("o", "one\r\n"), ("o", "two\r\n")]
    assert events[0][0] <= events[1][0]


def test_scenes_are_listed_and_an_unknown_one_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SCENES)
    assert main(["demo", "--scene", "nothing"]) == 1
    assert "no scene 'nothing'; there are kubelet-ca," in capsys.readouterr().err
