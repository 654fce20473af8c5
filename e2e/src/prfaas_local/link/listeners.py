"""What a link listens on: the endpoints of the pods at its far end, and nothing while it is cut."""

from __future__ import annotations

from prfaas_local.link.endpoints import endpoints
from prfaas_local.link.link import Link
from prfaas_local.link.state import Fault
from prfaas_local.link.translation import Translation
from prfaas_local.listening import Address, ListeningSet
from prfaas_local.node.reflector import Reflector


class Listeners(ListeningSet[Address]):
    """The listening addresses of a link, and the pods' addresses that they lead to."""

    def __init__(self, link: Link, pods: Reflector, translation: Translation) -> None:
        def wanted() -> dict[Address, Address]:
            if link.state.fault is Fault.CUT:
                return {}
            return endpoints(pods.objects.values(), translation)

        super().__init__(wanted, link.listen)
        self._pods = pods
        pods.listen(lambda *_: self.changed())

    @property
    def synced(self) -> bool:
        """Whether the pods are known and nothing is left to be done about them."""
        return self._pods.synced.is_set() and self.settled
