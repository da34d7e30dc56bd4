"""The types of the API, and bodies decoded by them. Pure; the packaged table `types.json` is read once.

For the core of the API server:

- `types.find(name) -> TypeSchema`, `types.for_kind(group, version, kind) -> TypeSchema | None` (options kinds, Scale,
  Eviction, Binding, TokenRequest and reviews too); `types.add(schema, group, version, kind)`, `types.remove(name)`
  for CRDs.
- `decode.decode(body, content_type, group, version, kind) -> (obj, problems)`: JSON, YAML, protobuf. Raises
  BadRequest, UnsupportedMediaType. Problems (`unknown field "spec.x"`, `duplicate field "x"`) are for
  `fieldValidation`: drop them (Ignore), send each as `Warning: 299` (Warn, the default), or `raise
  decode.strict_failure(obj, kind, problems)` (Strict).
- `decode.decode_patched(obj, group, version, kind) -> (obj, problems)`: the same for what a patch made; raises
  Invalid. Strict: `raise decode.patch_invalid(orjson.dumps(obj), decode.strict_text(problems))`.
- `complete(obj, schema)`: adds what Go always prints (`status: {}`, `rules: null`, `strategy: {}`) and drops
  what omitempty never does. Call it after defaulting (before `track_update`) and again right before storing.
- `protobuf.encode(obj) -> bytes`, `protobuf.encode_watch_event(type, obj) -> bytes` for clients that accept nothing
  else.
- `times.canonical`, `times.parse`, `times.render`: the scalar forms.

Order of a write, as upstream's handlers: decode → default → `managedfields.track_update` (completes) → mutating
admission → prepare → validate → complete → store. What admission and strategies add later is owned by nobody
(tolerations, clusterIP).
"""

from miniapiserver.schema import types
from miniapiserver.schema.completion import complete
from miniapiserver.schema.conform import conform
from miniapiserver.schema.types import Field, TypeSchema

__all__ = ["Field", "TypeSchema", "complete", "conform", "types"]
