"""Konnectivity: how the API server reaches nodes it cannot dial. A server beside it, agents beside the nodes."""
