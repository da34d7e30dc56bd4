"""An image's USER (`1000`, `1000:1000`, `nginx`, `nginx:www`) as numbers, by the image's own /etc/passwd. Pure but for
reading that file; no link out of the root filesystem is followed.
"""

import os
from dataclasses import dataclass
from pathlib import Path


class UnknownUser(LookupError):
    """The name is not in the image. The text is containerd's."""


@dataclass(frozen=True, slots=True)
class UserIdentity:
    uid: int
    gid: int


def resolve(user: str, rootfs: Path | None) -> UserIdentity:
    """Raises UnknownUser. Empty is root; a number without an entry has group 0."""
    name, _, group = user.partition(":")
    entries = _entries(rootfs, "passwd")
    uid, gid = _user(name, entries)
    if group:
        gid = int(group) if group.isdigit() else _group(group, _entries(rootfs, "group"))
    return UserIdentity(uid, gid)


def _user(name: str, entries: list[list[str]]) -> tuple[int, int]:
    if not name:
        return 0, 0
    for entry in entries:
        if len(entry) > 3 and (entry[0] == name or (name.isdigit() and entry[2] == name)):
            return int(entry[2]), int(entry[3])
    if name.isdigit():
        return int(name), 0
    raise UnknownUser(f"unable to find user {name}: no matching entries in passwd file")


def _group(name: str, entries: list[list[str]]) -> int:
    for entry in entries:
        if len(entry) > 2 and entry[0] == name:
            return int(entry[2])
    raise UnknownUser(f"unable to find group {name}: no matching entries in group file")


def _entries(rootfs: Path | None, name: str) -> list[list[str]]:
    if rootfs is None:
        return []
    try:
        descriptor = os.open(rootfs / "etc" / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    with open(descriptor, errors="replace") as file:
        return [line.rstrip("\n").split(":") for line in file]
