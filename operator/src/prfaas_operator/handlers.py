"""Everything that Kopf calls, in one place.

Kopf brings the changes of the hub's objects, and that is all: the operator is level-triggered, so whatever happened to an
object leads to the same reconciliation of it and of what depends on it. Kopf stores nothing on the objects. Its own
finalizer has a name that no object carries, since it would take away one that none of its handlers asks for.
"""

from typing import Any

import kopf

from prfaas_operator import api
from prfaas_operator.hub import Hub

# The server ends a stream then, and the next one resumes.
_STREAM_S = 290  # an integer: the API server refuses any other number
_SILENCE_S = 75.0
_CONNECT_S = 10.0


def settings() -> kopf.OperatorSettings:
    """Return Kopf's settings."""
    found = kopf.OperatorSettings()
    found.persistence.finalizer = "kopf.prfaas.dev/unused"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.prfaas.dev")
    found.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.prfaas.dev")
    # Events are written by the operator, about what a person should know, and not about each handler.
    found.posting.enabled = False
    # The CRDs are there before Kopf starts, so nothing has to be discovered later; this spares rights on CRDs and namespaces.
    found.scanning.disabled = True
    found.watching.server_timeout = _STREAM_S
    found.watching.inactivity_timeout = _SILENCE_S
    found.watching.connect_timeout = _CONNECT_S
    found.networking.request_timeout = _STREAM_S
    found.networking.connect_timeout = _CONNECT_S
    found.networking.trust_env = True
    # Kopf would otherwise kill the process ten minutes after it was asked to stop.
    found.process.ultimate_exiting_timeout = None
    return found


def register(hub: Hub) -> kopf.OperatorRegistry:
    """Return a registry with the operator's handlers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await hub.connection()

    # What keeps the operator from starting is for the next pod to try, not for Kopf a minute later.
    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def startup(**_: Any) -> None:
        await hub.start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await hub.stop()

    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        hub.observe(event["type"], dict(event["object"]))

    for model in api.KINDS:
        kopf.on.event(api.GROUP, api.VERSION, model.definition.plural, registry=registry)(changed)
    return registry
