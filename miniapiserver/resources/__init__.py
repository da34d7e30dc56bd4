"""The kinds the API server knows: one row each."""
