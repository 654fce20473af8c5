"""The last published snapshot of each route, kept on the hub so that a restarted operator goes on where it was."""

import base64
import binascii

import structlog
from google.protobuf.message import DecodeError

from prfaas_operator.children.metadata import MANAGED_BY, MANAGED_BY_LABEL
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.resources import CONFIG_MAP
from prfaas_protocol import configuration_pb2 as pb

_log = structlog.get_logger(__name__)
_KEY = "snapshot"


def _name(uid: str) -> str:
    return f"prfaas-snapshot-{uid}"


class SnapshotArchive:
    """A ConfigMap for each route, in the operator's own namespace, named after the route's uid."""

    def __init__(self, api: ClusterApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def load(self, uid: str) -> pb.Snapshot | None:
        """Return what was kept; None when there is nothing, or nothing that can be read."""
        found = await self._api.get(CONFIG_MAP, self._namespace, _name(uid))
        encoded = ((found or {}).get("binaryData") or {}).get(_KEY)
        if not encoded:
            return None
        try:
            return pb.Snapshot.FromString(base64.b64decode(encoded))
        except (DecodeError, binascii.Error) as error:
            _log.warning("kept snapshot is damaged and is not used", uid=uid, error=str(error))
            return None

    async def keep(self, uid: str, snapshot: pb.Snapshot) -> None:
        await self._api.apply(
            CONFIG_MAP,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": _name(uid),
                    "namespace": self._namespace,
                    "labels": {MANAGED_BY_LABEL: MANAGED_BY},
                    "annotations": {"prfaas.dev/route": f"{snapshot.route_namespace}/{snapshot.route_name}"},
                },
                "binaryData": {_KEY: base64.b64encode(snapshot.SerializeToString(deterministic=True)).decode()},
            },
            force=True,
        )

    async def drop(self, uid: str) -> None:
        await self._api.delete(CONFIG_MAP, self._namespace, _name(uid))
