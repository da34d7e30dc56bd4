"""The ways to patch, pure: from an object and a patch to a new object. Nothing here changes its input.

- `document.media_type(content_type, strategic=True) -> str`: which patch it is; raises UnsupportedMediaType.
- `document.read(body, content_type) -> (patch, problems)`: the body of a JSON, merge or strategic patch; raises BadPatch (400).
  Problems are duplicate fields (and unknown operation fields), for `fieldValidation`.
- `jsonpatch.apply(obj, patch) -> obj` RFC 6902; raises Unprocessable (422 in upstream's words), RequestEntityTooLarge.
- `mergepatch.apply(obj, patch) -> obj` RFC 7386.
- `strategic.apply(obj, patch, schema) -> obj` with all directives; raises BadPatch, Unprocessable, UnmergeablePatch (500).

The result is an independent deep copy: give it to `schema.decode.decode_patched`, which prunes and checks it. `strategic`
and `mergepatch` results may hold anything the patch said, `jsonpatch` may even return something that is no object.
Server-side apply is `miniapiserver.managedfields`.
"""

from miniapiserver.patch.document import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH

__all__ = ["APPLY_PATCH", "JSON_PATCH", "MERGE_PATCH", "STRATEGIC_PATCH"]
