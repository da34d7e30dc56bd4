"""The node agent: registers its node, runs its pods, serves the kubelet's HTTPS endpoint."""
