"""The supervisor and command line: starts and watches the cluster's programs, imports none of them."""

__version__ = "0.1.0"
