"""Who set which field: `metadata.managedFields` and server-side apply. Pure.

- `track_update(old, new, schema, api_version=…, manager=…, subresource="", now=…) -> None`: call for create (`old`
  None), update and every patch that is no apply, after defaulting and `complete`, before admission. Sets
  `new["metadata"]["managedFields"]`; keeps entries and times of managers that lost nothing.
- `server_side_apply(live, config, schema, api_version=…, manager=…, force=…, subresource="", now=…) -> obj | None`: the
  new object with its managedFields, or None when nothing changed. `live` None means create; `config` is the decoded
  apply body (`read_config`). Raises ApplyConflict (409) and BadRequest.
- `read_config(body, kind) -> (obj, problems)`: an apply body, YAML or JSON, not yet conformed.
- `manager_name(field_manager, user_agent)`: the `fieldManager` parameter, else the agent's name up to `/`.

Restored deep copies are the caller's: neither function changes `old` or `live`; `track_update` changes `new` only.
"""
