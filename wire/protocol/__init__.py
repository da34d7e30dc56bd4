"""Sans-IO protocols: bytes in, events out.

No socket, no clock, no randomness, no logger in this folder. Illegal input raises `wire.errors.PeerProtocolError`
and nothing else.
"""
