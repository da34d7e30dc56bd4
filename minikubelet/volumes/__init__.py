"""Volumes of a pod as directories on the node: planned from the pod, written atomically, updated in place."""
