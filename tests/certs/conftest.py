"""An issued state directory."""

from pathlib import Path

import pytest
from issued_state import issue

from certs.layout import Layout


@pytest.fixture
def issued(tmp_path: Path) -> Layout:
    """A state directory after one `init`."""
    issue(tmp_path / "run")
    return Layout(tmp_path / "run")
