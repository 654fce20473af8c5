"""What all pods of a node share."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prfaas_local.node.addresses import AddressPool
from prfaas_local.node.apiserver import ApiServer, Json
from prfaas_local.node.backoff import CrashBackoff
from prfaas_local.node.environment import service_variables
from prfaas_local.node.events import EventRecorder
from prfaas_local.node.probing import Prober
from prfaas_local.node.reflector import Reflector
from prfaas_local.node.status import timestamp


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node as a pod sees it."""

    name: str
    api: ApiServer
    api_address: tuple[str, int] | None
    """Where pods find the API server; None means the `kubernetes` Service."""
    state_dir: Path
    addresses: AddressPool
    allocatable: Mapping[str, str]
    base_environment: Mapping[str, str]
    """What an image would set: PATH and the like."""
    config_maps: Reflector
    secrets: Reflector
    services: Reflector
    events: EventRecorder
    prober: Prober
    backoff: CrashBackoff = field(default_factory=CrashBackoff)

    def lookup(self, namespace: str, kind: str, name: str) -> Json | None:
        """Return a ConfigMap or Secret from the local copy."""
        reflector = self.config_maps if kind == "ConfigMap" else self.secrets
        return reflector.objects.get((namespace, name))

    def service_variables(self, namespace: str, *, links: bool) -> dict[str, str]:
        """Return the Service variables of a pod that starts now."""
        default = self.services.objects.get(("default", "kubernetes"))
        if self.api_address:
            host, port = self.api_address
        elif default:
            host, port = default["spec"]["clusterIP"], default["spec"]["ports"][0]["port"]
        else:
            host, port = self.api.credentials.address
        return service_variables(self.services.objects.values(), namespace, links=links, api_host=host, api_port=port)


def now() -> datetime.datetime:
    """Return the time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def now_timestamp() -> str:
    """Return the time as the API writes it."""
    return timestamp(now())
