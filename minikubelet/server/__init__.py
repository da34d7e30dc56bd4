"""The kubelet's HTTPS endpoint: routes, who may use them, and what they answer."""
