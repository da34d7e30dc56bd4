"""The ways to patch, pure: from an object and a patch to a new object. Nothing here changes its input.

- `read(body, content_type) -> patch`: the body of a JSON, merge or strategic patch; raises BadPatch (400). With
  problems (duplicate fields, unknown operation fields) for `fieldValidation`: `document.read(body, content_type) ->
  (patch, problems)`.
- `jsonpatch.apply(obj, patch) -> obj` RFC 6902; raises Unprocessable (422 in upstream's words),
  RequestEntityTooLarge.
- `mergepatch.apply(obj, patch) -> obj` RFC 7386.
- `strategic.apply(obj, patch, schema) -> obj` with all directives; raises BadPatch, Unprocessable, UnmergeablePatch
  (500).

The result is an independent deep copy: give it to `schema.decode.decode_patched`, which prunes and checks it.
`strategic` and `mergepatch` results may hold anything the patch said, `jsonpatch` may even return something that is
no object. Server-side apply is `miniapiserver.managedfields`.
"""

from typing import Any

from miniapiserver.patch import document
from miniapiserver.patch.document import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH

__all__ = ["JSON_PATCH", "MERGE_PATCH", "STRATEGIC_PATCH", "read"]


def read(body: bytes, content_type: str) -> Any:
    """A list of operations for a JSON patch, else an object. Raises BadPatch."""
    return document.read(body, content_type)[0]
