"""Objects in memory, serialized once, above any storage: GET, LIST and watch fan-out send bytes they already have."""

from miniapiserver.watchcache.cache import Page, WatchCache
from miniapiserver.watchcache.cached import Cached, Extract, items_json, splice
from miniapiserver.watchcache.caches import WatchCaches
from miniapiserver.watchcache.continuation import NOW, decode_continue, encode_continue
from miniapiserver.watchcache.events import Predicate, WatchEvent, WatchEventType, bookmark, frame
from miniapiserver.watchcache.watch import Watch

__all__ = ["NOW", "Cached", "Extract", "Page", "Predicate", "Watch", "WatchCache", "WatchCaches", "WatchEvent",
           "WatchEventType", "bookmark", "decode_continue", "encode_continue", "frame", "items_json", "splice"]
