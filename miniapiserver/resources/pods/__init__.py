"""Pods: the kind with the most rules."""
