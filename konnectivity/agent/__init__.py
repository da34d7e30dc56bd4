"""The proxy agent: holds links to proxy servers and dials what they ask for."""
