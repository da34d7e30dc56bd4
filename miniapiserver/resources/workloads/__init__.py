"""Kinds that make pods out of a template: apps/v1, batch/v1 and ReplicationControllers."""
