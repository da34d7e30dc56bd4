"""Konnectivity without I/O: gRPC framing, upstream's tunnel states, and the link of our own two ends."""
