"""How the tables of default roles are written.

My job: short words for policy rules, so that a role fits on a few lines. Lists are blank separated and come out sorted,
as upstream's rule builder sorts them. Pure.
"""

from typing import Any

JSON = dict[str, Any]

READ = "get list watch"
WRITE = "create update patch delete deletecollection"
READ_WRITE = f"{READ} {WRITE}"
READ_UPDATE = f"{READ} update patch"

CORE = "core"  # stands for the group ""

Table = dict[str, tuple[JSON, ...]]


def on(verbs: str, groups: str, resources: str, *, names: str = "") -> JSON:
    """A rule on resources."""
    named = sorted("" if group == CORE else group for group in groups.split())
    rule: JSON = {"verbs": _sorted(verbs), "apiGroups": named, "resources": _sorted(resources)}
    return rule | {"resourceNames": _sorted(names)} if names else rule


def at(verbs: str, urls: str) -> JSON:
    """A rule on paths."""
    return {"verbs": _sorted(verbs), "nonResourceURLs": _sorted(urls)}


def _sorted(words: str) -> list[str]:
    return sorted(words.split())


EVENTS = on("create update patch", f"{CORE} events.k8s.io", "events")
EVERY_ACCESS = (on("*", "*", "*"), at("*", "*"))
REVIEW_ACCESS = (on("create", "authentication.k8s.io", "tokenreviews"),
                 on("create", "authorization.k8s.io", "subjectaccessreviews"))
