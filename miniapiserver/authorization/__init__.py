"""Who may do what: a chain of authorizers."""
