"""Pod addresses of one node."""

from __future__ import annotations

import ipaddress


class AddressesExhaustedError(RuntimeError):
    """Every address of the pod CIDR is in use."""


class AddressPool:
    """Hand out addresses of a CIDR, the longest unused first, so that a new pod seldom inherits a recent address.

    The first host address is the node's own.
    """

    def __init__(self, cidr: str) -> None:
        try:
            self.network = ipaddress.IPv4Network(cidr)
        except ValueError as error:
            raise ValueError(f"pod CIDR {cidr!r}: {error}") from error
        if self.network.num_addresses < 8:
            raise ValueError(f"pod CIDR {cidr!r}: needs at least 8 addresses; use a /29 or larger")
        self.node_address = str(self.network[1])
        self._next = 2
        self._used: set[str] = set()

    def reserve(self, address: str) -> bool:
        """Take a given address. Return False when it is outside the CIDR, the node's own or in use."""
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            return False
        if parsed not in self.network or address in self._used or address == self.node_address:
            return False
        self._used.add(address)
        return True

    def allocate(self) -> str:
        """Take a free address. Raises `AddressesExhaustedError`."""
        hosts = self.network.num_addresses - 3
        for _ in range(hosts):
            address = str(self.network[self._next])
            self._next = 2 + (self._next - 1) % hosts
            if self.reserve(address):
                return address
        raise AddressesExhaustedError(f"all {hosts} addresses of {self.network} are in use; give a larger --pod-cidr")

    def release(self, address: str) -> None:
        """Give an address back."""
        self._used.discard(address)
