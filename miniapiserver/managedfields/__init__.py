"""Who set which field: `metadata.managedFields` and server-side apply. Pure: `now` (RFC 3339) is an argument.

- `track_update(old, new, schema, *, api_version, manager, subresource="", now) -> None`: for create (`old` None),
  update and every patch that is no apply; after defaulting, before admission. Completes `new` and sets its
  `metadata.managedFields`.
- `keep_times(old, new) -> None`: right before the no-op check of an update: a write that changes only the times of
  managedFields is none.
- `read_config(body, kind) -> (config, problems)`: an apply body (YAML or JSON). Problems are duplicate keys; Strict
  answers `BadRequest("error strict decoding YAML: …")`.
- `server_side_apply(live, config, schema, *, api_version, manager, force, subresource="", now) -> obj`: a new object
  with its managedFields, for `schema.decode.decode_patched`, defaulting, admission. `live` None creates. `config` is
  what the client wrote, not conformed: an empty map is a claim too. Do not call `track_update` after it. Raises
  ApplyConflict (409), BadRequest, PlainInternal (500, unknown fields, as upstream).
- `manager_name(field_manager, user_agent) -> str`.

Neither function changes `old`, `live` or (but for an empty `metadata`) `config`.
"""

from miniapiserver.managedfields.apply import ApplyConflict, read_config, server_side_apply
from miniapiserver.managedfields.tracking import keep_times, manager_name, track_update

__all__ = ["ApplyConflict", "keep_times", "manager_name", "read_config", "server_side_apply", "track_update"]
