"""The addresses of this node's pods.

My job: one address per pod out of the node's pod CIDR, given back when the pod is gone. I own the set of those in
use. Neighbours: `worker`. Rule: an address that was just given back is the last to be given out again.
"""

import ipaddress


class OutOfAddresses(Exception):
    """Every address of the pod CIDR is in use."""


class PodAddresses:
    """The pool. Lives as long as the kubelet. Without a CIDR every pod has the node's address."""

    def __init__(self, cidr: str, node_ip: str) -> None:
        self._network = ipaddress.ip_network(cidr) if cidr else None
        self._node_ip = node_ip
        self._owners: dict[str, str] = {}
        self._next = 0

    def allocate(self, uid: str, wanted: str = "") -> str:
        """This pod's address; `wanted` if it is ours and free. Raises OutOfAddresses."""
        if self._network is None:
            return self._node_ip
        for address, owner in self._owners.items():
            if owner == uid:
                return address
        if wanted and wanted not in self._owners and self._holds(wanted):
            self._owners[wanted] = uid
            return wanted
        return self._first_free(uid)

    def release(self, uid: str) -> None:
        for address in [address for address, owner in self._owners.items() if owner == uid]:
            del self._owners[address]

    def _holds(self, address: str) -> bool:
        try:
            return self._network is not None and ipaddress.ip_address(address) in self._network
        except ValueError:
            return False

    def _first_free(self, uid: str) -> str:
        assert self._network is not None
        # The network's first two addresses and the last are left out: network, gateway, broadcast.
        usable = self._network.num_addresses - 3
        for step in range(max(usable, 0)):
            offset = 2 + (self._next + step) % usable
            address = str(self._network.network_address + offset)
            if address not in self._owners:
                self._owners[address] = uid
                self._next = offset - 1
                return address
        raise OutOfAddresses(f"no free address in {self._network}")
