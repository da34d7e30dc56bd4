"""The API server: the hub every other process talks to."""
