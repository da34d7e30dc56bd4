"""Containers as processes: the interface the kubelet uses, and the embedded runtime behind it.

Import from the modules. This file stays empty: the launcher imports this package with nothing else loaded.
"""
