"""A deployment as its manifests describe it, and the simulator's scenario of it.

Everything that the operator would tell routers comes from the operator's own functions: the threshold of `Auto`, prices,
whether decode workers may absorb prefill. What manifests do not say is stated here:

| not in the manifests | taken as |
| --- | --- |
| workers of a pool with `scaling` | `minReplicas`, unless the caller says otherwise; pools do not scale during the run |
| the lengths that `Auto` goes by | the uncached lengths of all of the traffic, so that the threshold is the settled one |
| `bandwidth: Auto` | abundant at the start, then by the link's use with the planner's hysteresis, every `CONTROL_PERIOD_S` |
| what a second of prefill on a decode worker costs its decoding | a second; nothing for the engine `Sim`, which computes both side by side |
| recurrent state in prefix caches | for `kv.attention: Hybrid`, in the room that the constant part of S_kv takes; not for `Sim`, which keeps none |
| the time that HTTP, routing and the network's round trips take | `Overhead`, nothing by default |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from prfaas_cli import plan_manifests
from prfaas_cli.plan_manifests import Document, ManifestError
from prfaas_core import errors, routing, simulation
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment
from prfaas_core.profiles import Profile
from prfaas_core.simulation.closed_loop import ClosedLoop
from prfaas_operator import api
from prfaas_operator.api.inference_route import BandwidthMode, PolicyAlgorithm, PolicyMode
from prfaas_operator.configuration import pricing, snapshot, threshold
from prfaas_protocol import configuration_pb2 as pb

AUTO = "Auto"
CONTROL_PERIOD_S = 10.0

_MODES = {
    PolicyMode.ENFORCE: routing.Mode.ENFORCE,
    PolicyMode.SHADOW: routing.Mode.SHADOW,
    PolicyMode.LOCAL_ONLY: routing.Mode.LOCAL_ONLY,
}
_ALGORITHMS = {
    PolicyAlgorithm.PAPER: routing.Algorithm.PAPER,
    PolicyAlgorithm.FINISH_TIME: routing.Algorithm.FINISH_TIME,
}


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time to first token that is neither queue, prefill, bytes on the link nor a decode slot. It takes up no capacity.

    Attributes:
        request_s: of every request.
        token_s: for each prompt token besides: parsing, hashing and passing on the body.
        crossing_s: of a request whose KV crosses a link besides: round trips, and KV that is not sent at the link's rate.
    """

    request_s: float = 0.0
    token_s: float = 0.0
    crossing_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("request_s", "token_s", "crossing_s"):
            errors.non_negative(f"overhead.{name}", getattr(self, name))

    def seconds(self, tokens: int) -> float:
        """Return what a prompt of `tokens` waits wherever it is prefilled."""
        return self.request_s + self.token_s * tokens


LOCAL_CLUSTERS = Overhead(request_s=0.0085, token_s=2.1e-7, crossing_s=0.008)
"""Of the local clusters of `prfaas up`, from single requests of 500 to 100,000 tokens to idle workers: time to first token
less T_prefill, and less S_kv at the link's rate where it was crossed. Two cores with other work on them add some 10 ms."""


@dataclass(frozen=True, slots=True)
class Line:
    """A KVLink: `share` of `capacity_bps` is what PrfaaS may use. Pools with the same line share it."""

    name: str
    capacity_bps: float
    share: float
    cost_per_gb: float


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with a fixed number of workers; `line` leads from a remote one to the decode cluster."""

    name: str
    profile: Profile
    workers: int
    push: bool = False
    line: Line | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """One InferenceRoute and what it uses.

    Attributes:
        namespace, route: of the InferenceRoute.
        threshold: prompt tokens, or `AUTO`.
        policy: decides instead of `algorithm` when it is not None.
        bandwidth: None: by the link's use.
        hybrid: whether prefix caches hold recurrent state.
        interference: see `prfaas_core.simulation.DecodePool`.
        notes: what was assumed, in sentences.
    """

    namespace: str
    route: str
    decode: Pool
    local: Pool | None
    remote: tuple[Pool, ...]
    threshold: int | str
    mode: routing.Mode
    algorithm: routing.Algorithm
    bandwidth: routing.Bandwidth | None
    absorb: bool
    hybrid: bool
    interference: float
    policy: routing.Policy | None = None
    overhead: Overhead = Overhead()
    notes: tuple[str, ...] = ()

    @property
    def block_tokens(self) -> int:
        """Tokens of a block of the prefix caches; the router goes by the decode pool's profile."""
        return self.decode.profile.block_tokens

    def pools(self) -> tuple[Pool, ...]:
        """Return all pools, decode first."""
        return (self.decode, *((self.local,) if self.local is not None else ()), *self.remote)

    def threshold_tokens(self, lengths: Lengths, output_tokens: float) -> int:
        """Return the threshold in force; for `AUTO` the one that the operator computes from measured lengths."""
        if isinstance(self.threshold, int):
            return self.threshold
        return threshold.choose(
            self.threshold,
            decode=_side(self.decode),
            local=_side(self.local) if self.local is not None else None,
            remote=tuple(
                threshold.Way(_side(pool), pool.line.capacity_bps * pool.line.share, pool.line.name)
                for pool in self.remote
                if pool.line is not None and pool.workers
            ),
            before=None,
            mix=threshold.Mix(lengths, output_tokens),
        ).tokens

    def scenario(self, lengths: Lengths, output_tokens: float) -> simulation.Scenario:
        """Return the simulator's scenario, for traffic with these uncached lengths and this mean answer."""
        tokens = self.threshold_tokens(lengths, output_tokens)
        prices = self._prices(tokens)
        profile = self.decode.profile
        return simulation.Scenario(
            decode=simulation.DecodePool(
                self.decode.name, profile, self.decode.workers, interference=self.interference
            ),
            local=self._prefill(self.local) if self.local is not None else None,
            remote=tuple(self._prefill(pool) for pool in self.remote),
            policy=self.policy or routing.decide,
            threshold_tokens=tokens,
            bandwidth=self.bandwidth or routing.Bandwidth.ABUNDANT,
            mode=self.mode,
            algorithm=self.algorithm,
            absorb=self.absorb,
            hybrid=self.hybrid,
            state_tokens=_state_tokens(profile) if self.hybrid else 0,
            prices=prices.pools,
            link_prices=prices.links,
            base_prices=prices.pool_bases,
            link_base_prices=prices.link_bases,
            controller=self._bandwidth_loop(output_tokens) if self.bandwidth is None and self.remote else None,
            control_period_s=CONTROL_PERIOD_S,
        )

    def _prefill(self, pool: Pool) -> simulation.PrefillPool:
        link = None
        if pool.line is not None:
            line = pool.line
            link = simulation.Link(
                line.capacity_bps,
                self.overhead.crossing_s,
                cost_per_gb=line.cost_per_gb,
                share=line.share,
                name=line.name,
            )
        return simulation.PrefillPool(pool.name, pool.profile, pool.workers, link, pool.push)

    def _bandwidth_loop(self, output_tokens: float) -> ClosedLoop:
        """Return the part of the operator's loop that tells scarce from abundant, and nothing else."""
        template = Deployment(
            local=(self.local or self.decode).profile,
            local_instances=self.local.workers if self.local is not None else 0,
            decode_instances=self.decode.workers,
            output_tokens=output_tokens,
            remote=self.remote[0].profile,
        )
        return ClosedLoop(
            template,
            decode=self.decode.name,
            local=self.local.name if self.local is not None else None,
            remote=tuple(pool.name for pool in self.remote),
            plan=False,
            priced=False,
        )

    def _prices(self, threshold_tokens: int) -> _Prices:
        """Return what the operator tells routers about prices: a snapshot with as much in it as they depend on."""
        here = self.local or self.decode
        told = pb.Snapshot(
            model=pb.Model(max_model_len_tokens=self.decode.profile.max_model_len_tokens),
            policy=pb.Policy(threshold_tokens=threshold_tokens),
            decode=_told(self.decode),
            local_prefill=_told(self.local) if self.local is not None else None,
            remote_prefill=[
                pb.RemotePool(
                    pool=_told(pool), link=pb.Link(capacity_bps=pool.line.capacity_bps, share=pool.line.share)
                )
                for pool in self.remote
                if pool.line is not None
            ],
        )
        pricing.apply(told, here.profile, tuple(pool.profile for pool in self.remote))
        pools = [told.decode, *([told.local_prefill] if self.local is not None else [])]
        pools += [entry.pool for entry in told.remote_prefill]
        return _Prices(
            {pool.name: pool.price for pool in pools},
            {pool.name: pool.base_price for pool in pools},
            {entry.pool.name: entry.link.price for entry in told.remote_prefill},
            {entry.pool.name: entry.link.base_price for entry in told.remote_prefill},
        )


@dataclass(frozen=True, slots=True)
class _Prices:
    pools: Mapping[str, float]
    pool_bases: Mapping[str, float]
    links: Mapping[str, float]
    link_bases: Mapping[str, float]


def read(
    documents: Iterable[Document],
    *,
    route: str | None = None,
    workers: Mapping[str, int] | None = None,
    overhead: Overhead | None = None,
) -> Setup:
    """Return the setup of an InferenceRoute among manifests.

    Args:
        documents: of `plan_manifests.read`.
        route: its name; None when there is only one.
        workers: by pool, in place of what its manifest says.
        overhead: None for none.

    Raises:
        ManifestError: an object is missing or not valid, or a name is unknown.
    """
    objects = plan_manifests.Objects(documents)
    (namespace, name), found = _route(objects.all(api.InferenceRoute), route)
    reader = _Reader(objects, namespace, f"InferenceRoute {name}", dict(workers or {}))
    spec = found.spec
    decode_pool = objects.get(api.DecodePool, namespace, spec.decode_pool_ref.name, reader.wanted_by)
    decode = reader.pool(decode_pool, least=1)
    local = None
    if spec.local_prefill_pool_ref is not None:
        local_pool = objects.get(api.PrefillPool, namespace, spec.local_prefill_pool_ref.name, reader.wanted_by)
        local = reader.pool(local_pool)
    remote = tuple(
        reader.remote(reference.name, decode_pool.spec.cluster_ref.name) for reference in spec.remote_prefill_pool_refs
    )
    reader.check()
    kind = objects.get(api.ModelProfile, namespace, decode_pool.spec.profile_ref.name, decode.name).spec
    simulated = kind.engine.name == "Sim"
    fixed = {BandwidthMode.SCARCE: routing.Bandwidth.SCARCE, BandwidthMode.ABUNDANT: routing.Bandwidth.ABUNDANT}
    return Setup(
        namespace=namespace,
        route=name,
        decode=decode,
        local=local,
        remote=remote,
        threshold=spec.policy.threshold,
        mode=_MODES[spec.policy.mode],
        algorithm=_ALGORITHMS[spec.policy.algorithm],
        bandwidth=fixed.get(spec.policy.bandwidth),
        absorb=snapshot.absorbs(spec, decode.profile),
        hybrid=kind.kv.attention == "Hybrid" and not simulated,
        interference=0.0 if simulated else 1.0,
        overhead=overhead or Overhead(),
        notes=tuple(reader.notes),
    )


def _route(
    routes: Mapping[tuple[str, str], api.InferenceRoute], wanted: str | None
) -> tuple[tuple[str, str], api.InferenceRoute]:
    names = ", ".join(sorted(name for _, name in routes))
    if not routes:
        raise ManifestError("the manifests hold no InferenceRoute, so nothing can be simulated; add one with -f")
    found = [item for item in routes.items() if wanted in (None, item[0][1])]
    if not found:
        raise ManifestError(f"--route {wanted}: no such InferenceRoute; there are {names}")
    if len(found) > 1:
        raise ManifestError(f"the manifests hold the InferenceRoutes {names}; choose one with --route")
    return found[0]


class _Reader:
    """Reads the pools of one route."""

    def __init__(
        self, objects: plan_manifests.Objects, namespace: str, wanted_by: str, workers: dict[str, int]
    ) -> None:
        self._objects, self._namespace, self._workers = objects, namespace, workers
        self.wanted_by = wanted_by
        self._seen: set[str] = set()
        self.notes: list[str] = []

    def pool(self, pool: api.Pool, line: Line | None = None, least: int = 0) -> Pool:
        name, spec = pool.metadata.name, pool.spec
        self._seen.add(name)
        wanted_by = f"{type(pool).__name__} {name}"
        profile = self._objects.profile(self._namespace, spec.profile_ref.name, wanted_by)
        kind = self._objects.get(api.ModelProfile, self._namespace, spec.profile_ref.name, wanted_by).spec
        if name in self._workers:
            workers = self._workers[name]
        elif spec.scaling is not None:
            workers = spec.scaling.min_replicas
            self.notes.append(f"{name} scales from {workers} to {spec.scaling.max_replicas}; taken as {workers}")
        else:
            workers = spec.replicas or 0
        if workers < least:
            raise ManifestError(f"{wanted_by}: {workers} workers; a decode pool needs at least {least} to simulate")
        return Pool(name, profile, workers, snapshot.pushes(kind.kv.connector.name), line)

    def remote(self, name: str, target: str) -> Pool:
        pool = self._objects.get(api.PrefillPool, self._namespace, name, self.wanted_by)
        source = pool.spec.cluster_ref.name
        for (namespace, line), link in self._objects.all(api.KVLink).items():
            spec = link.spec
            if namespace == self._namespace and (spec.from_cluster_ref.name, spec.to_cluster_ref.name) == (
                source,
                target,
            ):
                return self.pool(pool, Line(line, spec.capacity_gbps * 1e9, spec.share, float(spec.cost_per_gb)))
        raise ManifestError(f"{self.wanted_by}: no KVLink leads from {source}, where {name} is, to {target}; add one")

    def check(self) -> None:
        """Make sure that every number of workers was for a pool of the route."""
        for name in self._workers:
            if name not in self._seen:
                raise ManifestError(f"{name}: no such pool in {self.wanted_by}; it has {', '.join(sorted(self._seen))}")


def _side(pool: Pool) -> threshold.Side:
    return threshold.Side(pool.profile, pool.workers, pool.workers)


def _told(pool: Pool) -> pb.Pool:
    return pb.Pool(name=pool.name, endpoints=[pb.Endpoint()] * pool.workers)


def _state_tokens(profile: Profile) -> int:
    """Return the room of recurrent state in tokens: the constant part of S_kv over what each token adds to it."""
    low, high = profile.kv_bytes.tokens[0], profile.kv_bytes.tokens[-1]
    slope = (profile.kv_bytes(high) - profile.kv_bytes(low)) / (high - low)
    return max(0, round((profile.kv_bytes(low) - slope * low) / slope)) if slope > 0 else 0


def with_line(setup: Setup, changed: Line) -> Setup:
    """Return the setup with the line of the same name replaced, for all pools behind it."""
    return replace(
        setup,
        remote=tuple(
            replace(pool, line=changed) if pool.line is not None and pool.line.name == changed.name else pool
            for pool in setup.remote
        ),
    )


def with_pool(setup: Setup, changed: Pool) -> Setup:
    """Return the setup with the pool of the same name replaced."""
    return replace(
        setup,
        decode=changed if setup.decode.name == changed.name else setup.decode,
        local=changed if setup.local is not None and setup.local.name == changed.name else setup.local,
        remote=tuple(changed if pool.name == changed.name else pool for pool in setup.remote),
    )
