"""Which routers a route's Service leads to while the routers move between a Deployment of their own and the decode pods.

A change of `spec.router.placement` must not leave clients without a router. So the old routers stay, and the Service leads to
them, until the new ones are ready: the Deployment until every ready decode pod carries a router, the sidecars until the
Deployment is complete. Without old routers there is nothing to wait for.
"""

from dataclasses import dataclass

from prfaas_operator import api
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.children.metadata import SERVING, SERVING_LABEL, identity_labels
from prfaas_operator.children.router import CONTAINER, router_name
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import DEPLOYMENT, POD
from prfaas_operator.configuration.snapshot import ready_workers
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import Context


@dataclass(frozen=True, slots=True)
class Routers:
    """The routers of one route that are there.

    Attributes:
        front: whether they have a Deployment, and `front_ready` whether it is complete.
        carrying: ready decode pods with a router, and `bare` those without one.
    """

    front: bool
    front_ready: bool
    carrying: int
    bare: int


def serving(wanted: Placement, routers: Routers) -> Placement:
    """Return the placement whose routers the Service leads to."""
    if wanted is Placement.SIDECAR:
        complete = routers.carrying > 0 and routers.bare == 0
        return Placement.FRONT if routers.front and not complete else Placement.SIDECAR
    return Placement.SIDECAR if routers.carrying > 0 and not routers.front_ready else Placement.FRONT


def observed(context: Context, stored: Stored, route: api.InferenceRoute) -> Placement:
    """Return the placement that serves a route now; the one that is wanted where its cluster cannot be read."""
    wanted = route.spec.router.placement
    namespace = stored.ref.namespace
    decode = context.store.model(api.DecodePool, namespace, route.spec.decode_pool_ref.name)
    if decode is None:
        return wanted
    member = context.member(namespace, decode[1].spec.cluster_ref.name)
    if member is None or not member.cache.listed((DEPLOYMENT, POD)):
        return wanted
    deployment = member.cache.get(DEPLOYMENT, router_name(stored.ref.name))
    status = (deployment or {}).get("status") or {}
    pods = member.cache.owned(POD, decode[0].uid)
    ready = {worker.name for worker in ready_workers(pods, decode[0].uid)}
    containers = [
        {container["name"] for container in pod["spec"]["containers"]}
        for pod in pods
        if pod["metadata"]["name"] in ready
    ]
    carrying = sum(CONTAINER in names for names in containers)
    routers = Routers(
        front=deployment is not None,
        front_ready=int(status.get("readyReplicas", 0)) >= route.spec.router.replicas,
        carrying=carrying,
        bare=len(containers) - carrying,
    )
    return serving(wanted, routers)


def sidecars(member: Member, decode_pool: str, uid: str) -> dict[str, str]:
    """Return what selects the pods of a decode pool whose routers clients may be led to: those that do not drain.

    Pods that an earlier operator made lack the label of those; until they are replaced, all are led to.
    """
    selector = identity_labels("decode", decode_pool)
    pods = member.cache.owned(POD, uid)
    ready = {worker.name for worker in ready_workers(pods, uid)}
    labelled = [
        (pod["metadata"].get("labels") or {}).get(SERVING_LABEL) == SERVING
        for pod in pods
        if pod["metadata"]["name"] in ready
    ]
    return {**selector, SERVING_LABEL: SERVING} if labelled and all(labelled) else selector


def carries(member: Member, decode_pool: str) -> bool:
    """Return whether the pods of a decode pool are made with a router."""
    deployment = member.cache.get(DEPLOYMENT, decode_pool) if member.cache.listed((DEPLOYMENT,)) else None
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    return any(container["name"] == CONTAINER for container in (template.get("spec") or {}).get("containers", ()))
