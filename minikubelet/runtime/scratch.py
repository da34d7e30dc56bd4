"""A container's own directory on the node: upper and work of its overlay, the files of its /etc.

My job: make it and take it away. I own `<runtime root>/containers`; `process` and `container` call me, in a thread
where trees may be big.
"""

import contextlib
import shutil
from pathlib import Path

PARTS = ("upper", "work", "etc")


def make(directory: Path) -> None:
    for part in PARTS:
        (directory / part).mkdir(parents=True)


def clear(directory: Path) -> None:
    """Harmless when it is gone. An overlay leaves a work directory without permissions; it is given some first."""
    for work in (directory / "work" / "work", *directory.glob("*/work/work")):
        with contextlib.suppress(OSError):
            work.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
