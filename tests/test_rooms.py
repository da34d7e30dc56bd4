"""The house rules of `docs/architecture.md`: who may import whom, and which room each library lives in."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("wire", "certs", "miniapiserver", "minicontroller", "minikubelet", "konnectivity", "miniplane")

#: package → what it may import of ours. Imports point down only; siblings meet on the wire.
BELOW = {
    "wire": {"wire"},
    "certs": {"certs"},
    "miniapiserver": {"miniapiserver", "certs", "wire"},
    "minicontroller": {"minicontroller", "certs", "wire"},
    "minikubelet": {"minikubelet", "certs", "wire"},
    "konnectivity": {"konnectivity", "certs", "wire"},
    "miniplane": {"miniplane", "certs", "wire"},
}

#: library → the only places that may import it (path prefixes).
LIVES_IN = {
    "cryptography": ("certs/",),
    "asyncssh": ("miniapiserver/egress/ssh.py", "minikubelet/sshd.py"),
    "h2": ("konnectivity/protocol/", "miniapiserver/egress/"),
    "sqlite3": ("miniapiserver/storage/sqlite.py",),
    "subprocess": ("minikubelet/runtime/", "miniplane/"),
    "pty": ("minikubelet/runtime/",),
}

#: What a sans-IO folder may not touch: bytes in, events out.
IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "time",
    "random",
    "secrets",
    "logging",
    "subprocess",
    "threading",
    "os",
    "aiohttp",
}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_point_down_only_and_siblings_never_meet() -> None:
    broken = []
    for path in sources():
        package = name_of(path).split("/")[0]
        for module in imported(path):
            first = module.split(".")[0]
            if first in PACKAGES and first not in BELOW[package]:
                broken.append(f"{name_of(path)} imports {module}: {package} may only import {sorted(BELOW[package])}")
    assert broken == []


def test_every_outside_library_has_one_room() -> None:
    broken = []
    for path in sources():
        for module in imported(path):
            rooms = LIVES_IN.get(module.split(".")[0])
            if rooms is not None and not name_of(path).startswith(rooms):
                broken.append(f"{name_of(path)} imports {module}, which lives in {', '.join(rooms)}")
    assert broken == []


def test_a_protocol_folder_does_no_io_and_knows_no_clock() -> None:
    broken = []
    for path in sources():
        if "/protocol/" not in name_of(path):
            continue
        broken += [f"{name_of(path)} imports {module}" for module in imported(path) if module.split(".")[0] in IMPURE]
    assert broken == []


def test_no_file_is_named_after_nothing() -> None:
    empty = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py", "manager.py", "base.py"}
    assert [name_of(path) for path in sources() if path.name in empty] == []


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
