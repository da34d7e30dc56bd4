"""The strategic merge patch that turns one pod status into another.

My job: only what changed, with nulls for what is gone (a merge never removes by silence). Pure. Neighbours:
`statuswriter`. Merge keys are those of core/v1 PodStatus: conditions by type, podIPs by ip; container statuses are
replaced whole.
"""

from typing import Any

JSON = dict[str, Any]

_MERGED_LISTS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}


def status_patch(old: JSON, new: JSON) -> JSON | None:
    """The patch of `status`, or None if nothing changed."""
    patch: JSON = {}
    for key in old.keys() - new.keys():
        patch[key] = None
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if key in _MERGED_LISTS and before:
            patch |= _merged_list(key, _MERGED_LISTS[key], before, value)
        else:
            patch[key] = value
    return patch or None


def _merged_list(key: str, merge_key: str, old: list[JSON], new: list[JSON]) -> JSON:
    before = {item[merge_key]: item for item in old}
    after = {item[merge_key] for item in new}
    changes: list[JSON] = []
    for item in new:
        known = before.get(item[merge_key])
        if known is None:
            changes.append(item)
        elif known != item:
            gone: JSON = dict.fromkeys(known.keys() - item.keys())
            changed = {name: value for name, value in item.items() if known.get(name, ...) != value}
            changes.append({merge_key: item[merge_key]} | gone | changed)
    changes += [{"$patch": "delete", merge_key: name} for name in before if name not in after]
    order = [{merge_key: item[merge_key]} for item in new]
    return {f"$setElementOrder/{key}": order, key: changes} if changes else {}
