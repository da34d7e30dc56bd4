"""How the API server reaches the nodes' network: one Dialer per kind of traffic."""
