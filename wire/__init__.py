"""Bytes between processes: serve, dial, TLS, upgrade, relay, and the API client.

I know how bytes move and nothing about what a cluster is. `wire.protocol` below me is sans-IO; `certs` and the
programs stand on me. Rule: every connection has one owner, the coroutine that opened it.
"""
