"""How much of each quota is used.

My job: count what is there and write it into the quota's status (`pkg/controller/resourcequota`). The API server
charges at admission; I fill in a new quota, give back what went, and put right what was charged for a write that
failed. I look when something goes away or a quota changes, and once a minute. `wire.quota` knows what counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from minicontroller.actions import Action
from minicontroller.controller import Controller, Key, key_of
from minicontroller.informers import each
from wire import quota
from wire.apiclient import NotFound, resource_path
from wire.informer import DELETED, Informer

JSON = dict[str, Any]

#: (group, version, plural) that are watched anyway: their going is noticed at once.
WATCHED = (
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("apps", "v1", "deployments"),
    ("apps", "v1", "replicasets"),
    ("", "v1", "replicationcontrollers"),
    ("batch", "v1", "jobs"),
    ("", "v1", "resourcequotas"),
)
#: Counted by asking, at each look: they may be many, or hold what this process need not know.
LISTED = (
    ("", "v1", "secrets"),
    ("", "v1", "configmaps"),
    ("", "v1", "persistentvolumeclaims"),
    ("apps", "v1", "statefulsets"),
    ("apps", "v1", "daemonsets"),
    ("batch", "v1", "cronjobs"),
)
LOOK_EVERY = 60.0


class ResourceQuotas(Controller):
    name = "resourcequota"

    def watch(self) -> None:
        self.copies: dict[tuple[str, str], Informer] = {}
        for group, version, plural in WATCHED:
            informer = self.informers.of(group, version, plural)
            self.copies[plural, group] = informer
            informer.subscribe(self._replenished)
        self.quotas = self.copies["resourcequotas", ""]
        self.quotas.subscribe(self._quota_changed)

    def _quota_changed(self, kind: str, new: JSON | None, old: JSON | None) -> None:
        """A charge at admission is no reason to count: its object is not there yet."""
        if new is not None and (old is None or needs_count(new)):
            self.queue.add(key_of(new))

    def _replenished(self, kind: str, new: JSON | None, old: JSON | None) -> None:
        ended = new is not None and old is not None and has_ended(new) and not has_ended(old)
        if new is not None and (kind == DELETED or ended):
            for item in each(self.quotas, new["metadata"].get("namespace", "")):
                self.queue.add(key_of(item))

    def plan(self, key: Key) -> Iterable[Action]:
        """Decided in `sync`, which has to ask for what is not watched."""
        return ()

    async def sync(self, key: Key) -> None:
        item = self.quotas.objects.get(key)
        if item is None:
            return
        self.queue.add_after(key, LOOK_EVERY)
        hard = (item.get("spec") or {}).get("hard") or {}
        used = dict.fromkeys(hard, 0)
        for plural, group, objects in await self._counted(key[0], hard):
            used = quota.add(used, counted(item, plural, group, objects))
        status = {"hard": hard, "used": {name: quota.text(name, used[name]) for name in hard}}
        if status != item.get("status"):
            path = resource_path("", "v1", "resourcequotas", *key, "status")
            written = await self.informers.client.update(path, item | {"status": status})
            await self.informers.seen(written)

    async def _counted(self, namespace: str, hard: Mapping[str, str]) -> list[tuple[str, str, list[JSON]]]:
        found = []
        for (plural, group), informer in self.copies.items():
            if quota.concerns(plural, group, hard):
                found.append((plural, group, list(each(informer, namespace))))
        for group, version, plural in LISTED:
            if quota.concerns(plural, group, hard):
                answer = await self._list(resource_path(group, version, plural, namespace))
                found.append((plural, group, answer))
        return found

    async def _list(self, path: str) -> list[JSON]:
        try:
            answer = await self.informers.client.list(path)
        except NotFound:
            return []
        items: list[JSON] = answer.get("items") or []
        return items


def needs_count(item: JSON) -> bool:
    """The status does not speak of what the spec limits."""
    hard, status = (item.get("spec") or {}).get("hard") or {}, item.get("status") or {}
    return hard != (status.get("hard") or {}) or hard.keys() != (status.get("used") or {}).keys()


def has_ended(obj: JSON) -> bool:
    """Only pods have these phases."""
    return (obj.get("status") or {}).get("phase") in quota.FINISHED


def counted(item: JSON, plural: str, group: str, objects: Iterable[JSON]) -> quota.Usage:
    """What these objects use of this quota."""
    names = quota.concerns(plural, group, (item.get("spec") or {}).get("hard") or {})
    total: quota.Usage = {}
    for obj in objects:
        if quota.in_scope(item, plural, obj):
            used = quota.usage(plural, group, obj)
            total = quota.add(total, {name: used.get(name, 0) for name in names})
    return total
