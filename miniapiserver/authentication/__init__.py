"""Who is asking: a chain of authenticators, first success wins."""
