"""The words cells of Tables are made of.

My job: the columns nearly every kind has, and how ages, selectors, containers and lists are written
(apimachinery `util/duration`, kubernetes `pkg/printers`). I own no table: each kind's module builds its own.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from miniapiserver.resources.descriptions import DESCRIPTIONS
from miniapiserver.resources.resource import Column, Table

JSON = dict[str, Any]

UNKNOWN, NONE = "<unknown>", "<none>"
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 86400 * 365


def column(name: str, about: str = "", *, type: str = "string", wide: bool = False) -> Column:
    """`about` is a key of DESCRIPTIONS (`PodSpec.nodeName`), or the description itself."""
    return Column(name, type, "", DESCRIPTIONS.get(about, about), 1 if wide else 0)


NAME = Column("Name", "string", "name", DESCRIPTIONS["ObjectMeta.name"])
AGE = column("Age", "ObjectMeta.creationTimestamp")
CONTAINERS = column("Containers", "Names of each container in the template.", wide=True)
IMAGES = column("Images", "Images referenced by each container in the template.", wide=True)


def seconds_of(timestamp: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time, None where it is none."""
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except (ValueError, OverflowError):
        return None


def duration(seconds: float) -> str:
    """Go's HumanDuration: two or three significant figures."""
    whole = int(seconds)
    if whole < 0:
        return "<invalid>" if whole < -1 else "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    return _two(whole, _YEAR, "y", _DAY, "d") if whole < 8 * _YEAR else f"{whole // _YEAR}y"


def _two(whole: int, unit: int, letter: str, smaller: int, smaller_letter: str) -> str:
    rest = whole % unit // smaller
    return f"{whole // unit}{letter}{rest}{smaller_letter}" if rest else f"{whole // unit}{letter}"


def since(timestamp: str | None, now: float) -> str:
    """How long ago, or `<unknown>`."""
    moment = seconds_of(timestamp) if timestamp else None
    return UNKNOWN if moment is None else duration(now - moment)


def until(timestamp: str | None, now: float) -> str:
    moment = seconds_of(timestamp) if timestamp else None
    return UNKNOWN if moment is None else duration(moment - now)


def age(obj: JSON, now: float) -> str:
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now)


def name(obj: JSON) -> str:
    return (obj.get("metadata") or {}).get("name") or ""


def joined(values: Iterable[Any] | None) -> str:
    return ",".join(value or "" for value in values or ())


def labels_text(labels: Mapping[str, Any] | None) -> str:
    """`a=b,c=d` sorted by key, `<none>` when there are none (apimachinery `labels.FormatLabels`)."""
    return ",".join(f"{key}={value or ''}" for key, value in sorted((labels or {}).items())) or NONE


_OPERATORS = {"In": "in", "NotIn": "notin"}


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as a selector string (`metav1.FormatLabelSelector`)."""
    if selector is None:
        return NONE
    terms = [(key, f"{key}={value or ''}") for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, operator = (expression or {}).get("key") or "", (expression or {}).get("operator")
        if operator in _OPERATORS:
            values = ",".join(sorted(value or "" for value in expression.get("values") or ()))
            terms.append((key, f"{key} {_OPERATORS[operator]} ({values})"))
        else:
            terms.append((key, key if operator == "Exists" else f"!{key}"))
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0])) or NONE


def container_cells(template: Mapping[str, Any] | None) -> list[str]:
    """Names and images of a pod template's containers."""
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    listed = [container or {} for container in containers]
    return [",".join(container.get("name") or "" for container in listed),
            ",".join(container.get("image") or "" for container in listed)]


def created_at(obj: JSON) -> str:
    """The date cell of kinds without a table of their own, as RFC 3339 in UTC."""
    stamp = (obj.get("metadata") or {}).get("creationTimestamp") or ""
    moment = seconds_of(stamp)
    return stamp if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name_and_age(obj: JSON, now: float) -> list[Any]:
    return [name(obj), age(obj, now)]


NAME_AND_AGE = Table((NAME, AGE), _name_and_age)
#: What apiserver prints for kinds nobody wrote a printer for (`rest.NewDefaultTableConvertor`)
NAME_AND_CREATED = Table((NAME, Column("Created At", "date", "", DESCRIPTIONS["ObjectMeta.creationTimestamp"])),
                         lambda obj, now: [name(obj), created_at(obj)])


def table(*columns: Column, cells: Callable[[JSON, float], list[Any]]) -> Table:
    return Table((NAME, *columns), lambda obj, now: [name(obj), *cells(obj, now)])
