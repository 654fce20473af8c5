"""Which pools and links a route can use, and why not the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_core import compatibility
from prfaas_core.errors import CoreError
from prfaas_core.profiles import Profile
from prfaas_operator import api
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.inference_route import BandwidthMode
from prfaas_operator.api.kv_link import Bandwidth
from prfaas_operator.clusters.resources import POD
from prfaas_operator.configuration import snapshot as snapshots
from prfaas_operator.configuration.snapshot import LinkView, PoolView
from prfaas_operator.objects import Ref, Stored
from prfaas_operator.reconcile import pools
from prfaas_operator.reconcile.context import Context


class ResolutionError(Exception):
    """The route cannot be programmed as it is; the routers keep what they have."""

    def __init__(self, reason: Reason, message: str, *, stalled: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.stalled = stalled


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of a route with what belongs to it."""

    stored: Stored
    model: api.Pool
    profile_spec: Mapping[str, Any]
    view: PoolView
    desired: int

    @property
    def ready(self) -> int | None:
        return len(self.view.workers) if self.view.workers is not None else None


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote prefill pool and the link that its KV crosses."""

    pool: Pool
    link: api.KVLink
    usable_bps: float  # of the link: what PrfaaS may use, or what it really carries if that is less

    @property
    def link_view(self) -> LinkView:
        return LinkView(
            namespace=self.pool.view.namespace,
            name=self.link.metadata.name,
            capacity_bps=self.link.spec.capacity_gbps * 1e9,
            share=self.link.spec.share,
            translation=self.link.spec.address_translation,
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A prefill pool that is not part of the configuration, and why."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A route with the pools and links it can use."""

    decode: Pool
    local: Pool | None
    remote: tuple[Remote, ...]
    left_out: tuple[LeftOut, ...]

    def pools(self) -> tuple[Pool, ...]:
        """Return every pool, decode first."""
        local = (self.local,) if self.local is not None else ()
        return (self.decode, *local, *(remote.pool for remote in self.remote))


def resolve(context: Context, stored: Stored, route: api.InferenceRoute) -> Resolved:
    """Return the pools and links of a route that can work together.

    Raises `ResolutionError` when not even decoding is possible; prefill pools that do not fit are left out.
    """
    ref, spec = stored.ref, route.spec
    decode = _pool(context, api.DecodePool, ref.namespace, spec.decode_pool_ref.name, "spec.decodePoolRef")
    if decode.view.profile.model != spec.model:
        raise ResolutionError(
            Reason.MODEL_MISMATCH,
            f"spec.model is {spec.model!r}, and the profile of decode pool {decode.view.name} is for "
            f"{decode.view.profile.model!r}; name a pool of this model",
        )
    left_out: list[LeftOut] = []
    local: Pool | None = None
    if spec.local_prefill_pool_ref is not None:
        try:
            found = _prefill(context, decode, spec.local_prefill_pool_ref.name, "spec.localPrefillPoolRef")
            if found.view.cluster != decode.view.cluster:
                raise ResolutionError(
                    Reason.CLUSTER_MISMATCH,
                    f"local prefill pool {found.view.name} is in cluster {found.view.cluster}, the decode pool in "
                    f"{decode.view.cluster}; make it a remote pool",
                )
            local = found
        except ResolutionError as error:
            left_out.append(LeftOut(error.reason, error.message))
    remote: list[Remote] = []
    for reference in spec.remote_prefill_pool_refs:
        try:
            found = _prefill(context, decode, reference.name, "spec.remotePrefillPoolRefs")
            link = _link(context, found, decode)
            named = Ref(api.KVLink.__name__, ref.namespace, link.metadata.name)
            remote.append(Remote(found, link, context.capacities.believed(named, link).bps))
        except ResolutionError as error:
            left_out.append(LeftOut(error.reason, error.message))
    return Resolved(decode, local, tuple(remote), tuple(left_out))


def _prefill(context: Context, decode: Pool, name: str, field: str) -> Pool:
    found = _pool(context, api.PrefillPool, decode.view.namespace, name, field)
    different = compatibility.differences(decode.profile_spec, found.profile_spec)
    if different:
        raise ResolutionError(
            Reason.FINGERPRINTS_DIFFER,
            f"prefill pool {name} cannot hand KV to decode pool {decode.view.name}: "
            + "; ".join(f"{entry.field} is {entry.right!r} there and {entry.left!r} here" for entry in different),
        )
    return found


def _pool(context: Context, kind: type[api.Pool], namespace: str, name: str, field: str) -> Pool:
    found = context.store.model(kind, namespace, name)
    if found is None:
        raise ResolutionError(
            Reason.POOL_NOT_FOUND, f"{field}: no {kind.__name__} {name} in namespace {namespace}; make it"
        )
    stored, model = found
    profile = context.store.model(api.ModelProfile, namespace, model.spec.profile_ref.name)
    if profile is None:
        raise ResolutionError(
            Reason.PROFILE_NOT_FOUND, f"{kind.__name__} {name}: no ModelProfile {model.spec.profile_ref.name}; make it"
        )
    spec = profile[0].body["spec"]
    try:
        core, fingerprint = Profile.from_spec(spec), compatibility.kv_fingerprint(spec)
    except CoreError as error:
        raise ResolutionError(Reason.INVALID_SPEC, f"ModelProfile {model.spec.profile_ref.name}: {error}") from error
    member = context.member(namespace, model.spec.cluster_ref.name)
    workers = None
    if member is not None and member.cache.listed((POD,)):
        workers = snapshots.ready_workers(member.cache.owned(POD, stored.uid), stored.uid)
    view = PoolView(
        namespace=namespace,
        name=name,
        cluster=model.spec.cluster_ref.name,
        profile=core,
        connector=str(profile[1].spec.kv.connector.name),
        kv_fingerprint=fingerprint,
        http_port=model.spec.ports.http,
        kv_port=model.spec.ports.kv,
        workers=workers,
        wakes=_wakes(context, stored, model),
    )
    return Pool(stored, model, spec, view, pools.desired_replicas(context, stored, model))


def _wakes(context: Context, stored: Stored, model: api.Pool) -> bool:
    """Return whether somebody scales a pool to zero, and back when requests want it.

    KEDA has its least number of workers in an object that is not read here; it asks for the demand.
    """
    scaling = model.spec.scaling
    if scaling is not None:
        return scaling.min_replicas == 0
    return any(found.scaled_object or found.min_replicas == 0 for found in context.autoscalers.of(stored.ref))


def _link(context: Context, remote: Pool, decode: Pool) -> api.KVLink:
    source, target = remote.view.cluster, decode.view.cluster
    if source == target:
        raise ResolutionError(
            Reason.CLUSTER_MISMATCH,
            f"remote prefill pool {remote.view.name} is in cluster {source}, as the decode pool is; make it the local one",
        )
    links = [
        link
        for stored, link in context.store.models(api.KVLink, decode.view.namespace)
        if (link.spec.from_cluster_ref.name, link.spec.to_cluster_ref.name) == (source, target) and not stored.deleting
    ]
    if not links:
        raise ResolutionError(
            Reason.LINK_NOT_FOUND,
            f"remote prefill pool {remote.view.name}: no KVLink leads from cluster {source} to {target}; make one",
        )
    if len(links) > 1:
        names = ", ".join(link.metadata.name for link in links)
        raise ResolutionError(
            Reason.LINK_AMBIGUOUS, f"KVLinks {names} all lead from cluster {source} to {target}; delete all but one"
        )
    return links[0]


def bandwidth(route: api.InferenceRoute, resolved: Resolved) -> Bandwidth:
    """Return which rule holds.

    `Auto` is scarce as soon as one link is, and for links that were not measured yet: a wrong guess then costs a cache hit,
    and not the link.
    """
    match route.spec.policy.bandwidth:
        case BandwidthMode.SCARCE:
            return Bandwidth.SCARCE
        case BandwidthMode.ABUNDANT:
            return Bandwidth.ABUNDANT
    links = [remote.link for remote in resolved.remote]
    if links and all(link.status.bandwidth is Bandwidth.ABUNDANT for link in links):
        return Bandwidth.ABUNDANT
    return Bandwidth.SCARCE
