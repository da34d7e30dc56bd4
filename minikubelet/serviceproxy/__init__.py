"""The node's service proxy: virtual IPs and node ports, answered by endpoints."""
