"""The documentation points at what is there: tests, scenes, files and paragraphs."""

import re
from pathlib import Path

import pytest

from miniplane.demo.scenes import SCENES

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_test_file_and_page_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).exists(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for folder in ("miniplane", "wire", "konnectivity", "miniapiserver", "certs", "minikubelet"):
        for path in re.findall(rf"`({folder}/[\w/.]+?)`", text):
            assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_has_a_page_with_its_link(name: str) -> None:
    text = (ROOT / "docs" / "scenes" / f"{name}.md").read_text()
    assert SCENES[name].link in text
    assert f"miniplane demo {name}" in text
    assert f"miniplane demo {name}" in (ROOT / "docs" / "seeds.md").read_text()
