"""The proxy server: fronts for the API server, links to agents."""
