"""Benchmarks: one command each, ratios beside a peer in the same run where there is one."""
