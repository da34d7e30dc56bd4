"""The four ways to patch, three of them here: pure functions from an object and a patch to a new object.

- `jsonpatch.apply(obj, patch: list) -> obj` RFC 6902; raises JSONPatchError (an Invalid: the 422 kubectl shows).
- `mergepatch.apply(obj, patch: dict) -> obj` RFC 7386.
- `strategic.apply(obj, patch: dict, schema: TypeSchema) -> obj` with all directives; raises PatchError (a BadRequest).
- `read(body, content_type) -> list | dict` decodes and checks the body of the first three.

None changes its input. The result is a plain dict that shares unchanged parts with the input: pass it to
`schema.decode.decode_patched`, which prunes, checks and reports unknown fields, after a deep copy if the input is
still needed (`strategic` and `mergepatch` copy what they change, `jsonpatch` copies all). Server-side apply is
`miniapiserver.managedfields.server_side_apply`.
"""
