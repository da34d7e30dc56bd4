"""The watch caches as authorizers read them.

My job: the objects of a storage name and a call when one changes, from the registry's caches. A resource the type table
does not have is empty for ever.
"""

from collections.abc import Callable, Sequence

from miniapiserver.authorization.graph import NodeGraph
from miniapiserver.authorization.rbac import GROUP, Sources
from miniapiserver.registry.registry import Registry
from miniapiserver.watchcache import Cached, WatchCache


class CacheSource:
    """One resource's cache. Lives as long as the server."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    def objects(self) -> Sequence[Cached]:
        return self._cache.list().items

    def observe(self, stale: Callable[[], None]) -> None:
        self._cache.observe(lambda change: stale())


def rbac_sources(registry: Registry) -> Sources:
    roles, bindings = (CacheSource(registry.store_of(f"{name}.{GROUP}").cache) for name in ("roles", "rolebindings"))
    cluster_roles, cluster_bindings = (CacheSource(registry.store_of(f"{name}.{GROUP}").cache)
                                       for name in ("clusterroles", "clusterrolebindings"))
    return Sources(cluster_roles, roles, cluster_bindings, bindings)


def node_graph(registry: Registry) -> NodeGraph:
    def cache(storage: str) -> WatchCache | None:
        try:
            return registry.store_of(storage).cache
        except StopIteration:
            return None

    return NodeGraph({storage: found for storage in NodeGraph.RESOURCES if (found := cache(storage)) is not None})
