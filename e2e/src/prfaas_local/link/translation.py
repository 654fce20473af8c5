"""The 1:1 translation of pod addresses, as a NAT between overlapping networks does it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TranslationError(ValueError):
    """Prefixes that cannot be translated into each other; the message names the one at fault."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Two prefixes of one length: an address keeps its host part and changes its prefix.

    Raises `TranslationError` when their lengths or families differ, or when they overlap.
    """

    pods: Network
    translated: Network

    def __post_init__(self) -> None:
        if self.pods.version != self.translated.version or self.pods.prefixlen != self.translated.prefixlen:
            raise TranslationError(
                f"translated CIDR {self.translated} has to be of the family and length of the pod CIDR {self.pods}"
            )
        if self.pods.overlaps(self.translated):
            raise TranslationError(f"translated CIDR {self.translated} overlaps the pod CIDR {self.pods}; take another")

    @classmethod
    def parse(cls, pod_cidr: str, translated_cidr: str) -> Translation:
        """Return the translation between two prefixes in CIDR notation. Raises `TranslationError`."""
        return cls(_network("pod CIDR", pod_cidr), _network("translated CIDR", translated_cidr))

    def translate(self, address: str) -> str | None:
        """Return what a pod's address is at the near end; None when it is no address inside the pod CIDR."""
        try:
            pod = ipaddress.ip_address(address)
        except ValueError:
            return None
        if pod not in self.pods:
            return None
        host = int(pod) - int(self.pods.network_address)
        return str(type(pod)(int(self.translated.network_address) + host))


def _network(name: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise TranslationError(f"{name} is {text!r}: {error}; write it like 10.30.0.0/16") from None
