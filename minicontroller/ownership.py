"""Who owns whom.

My job: owner references: making them, finding the controlling one, matching what an owner selects
(`controller_ref_manager.go`). Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from wire.nodeplacement import requirement_holds

JSON = dict[str, Any]


def owner_reference(owner: JSON) -> JSON:
    """The controlling reference to `owner`."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: JSON) -> JSON | None:
    """The owner reference marked as controller."""
    return next((ref for ref in obj["metadata"].get("ownerReferences") or [] if ref.get("controller")), None)


def is_controlled_by(obj: JSON, owner: JSON) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == owner["metadata"]["uid"]


def owner_keys(obj: JSON, kind: str) -> Iterable[tuple[str, str]]:
    """The key of the controlling owner of this kind, as an informer's event handler wants it."""
    reference = controller_of(obj)
    if reference is not None and reference.get("kind") == kind:
        return ((obj["metadata"].get("namespace", ""), reference["name"]),)
    return ()


def matches(selector: JSON | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(requirement_holds(term, labels) for term in selector.get("matchExpressions") or [])


def labels_of(obj: JSON) -> Mapping[str, str]:
    found: Mapping[str, str] = obj["metadata"].get("labels") or {}
    return found
