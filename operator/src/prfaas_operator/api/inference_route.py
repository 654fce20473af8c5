"""InferenceRoute: one model, served by a decode pool and the prefill pools that help it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AllowInfNan, Field, Strict

from prfaas_operator.api.containers import RouterContainer
from prfaas_operator.api.kv_link import Bandwidth
from prfaas_operator.api.model import Model, StatusModel
from prfaas_operator.api.references import Reference
from prfaas_operator.api.resource import AGE, READY, REASON, Column, Definition, Resource, named_like_a_service
from prfaas_operator.api.route_plan import Roles, RolesStatus, RoutePlan, ThresholdSource
from prfaas_operator.api.rules import Rule, immutable
from prfaas_operator.api.scalars import (
    MAX_REPLICAS,
    Between,
    Flag,
    IPAddress,
    Measured,
    Message,
    ModelName,
    Name,
    Port,
    Seconds,
    Subdomain,
    Term,
    Threshold,
    Whole,
)
from prfaas_operator.api.status import Status
from prfaas_operator.api.uniqueness import KeyedBy


class PolicyMode(StrEnum):
    """What the router does with a decision."""

    ENFORCE = "Enforce"
    SHADOW = "Shadow"
    LOCAL_ONLY = "LocalOnly"


class BandwidthMode(StrEnum):
    """Which rule of the paper holds: chosen from the link's use, or fixed."""

    AUTO = "Auto"
    SCARCE = "Scarce"
    ABUNDANT = "Abundant"


class PolicyAlgorithm(StrEnum):
    """Which policy decides each request."""

    PAPER = "Paper"
    FINISH_TIME = "FinishTime"


class Placement(StrEnum):
    """Where routers run."""

    FRONT = "Front"
    SIDECAR = "Sidecar"


class ServiceType(StrEnum):
    """Types of a Service that a router can have."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Policy(Model):
    """How the router decides where a request's prefill goes."""

    mode: PolicyMode = PolicyMode.ENFORCE
    """Enforce: decide and act. Shadow: decide and record, but prefill locally. LocalOnly: never leave the cluster."""
    algorithm: PolicyAlgorithm = PolicyAlgorithm.PAPER
    """Paper: compare the uncached length with the threshold. FinishTime: where the first token comes soonest, counting what
    that costs other requests; the threshold is its prior, and decides alone when signals are missing or old."""
    threshold: Threshold = "Auto"
    """Prompts with more uncached tokens than this go to a remote pool. Auto: the operator computes it from profiles,
    replicas and link."""
    bandwidth: BandwidthMode = BandwidthMode.AUTO
    """Scarce: each cluster's prefix cache is judged on its own. Abundant: the best cache anywhere counts. Auto: chosen
    from the link's use."""
    roles: Roles = Roles()
    """Whether instances change between local prefill and decode."""


class ServiceLevelObjective(Model):
    """What requests of this route should see."""

    ttft_seconds: Seconds | None = None
    """Time to first token, in seconds."""
    itl_seconds: Seconds | None = None
    """Time between two tokens, in seconds."""


class Limits(Model):
    """What the router accepts, and how long it waits."""

    max_body_bytes: Annotated[int, Between(1024, 2**30)] = 8_388_608
    """Longest request body, in bytes; longer ones are answered with status 413."""
    prefill_timeout_seconds: Seconds = 60
    """A prefill without an answer for so many seconds has failed, and its request is prefilled locally."""
    connect_timeout_seconds: Annotated[Seconds, Field(le=60)] = 2
    """A worker that does not accept a connection for so many seconds is passed over."""
    max_waiting_requests: Annotated[int, Between(0, 65_536)] = 256
    """Requests that wait in each router while the decode pool has no worker, such as when it is scaled to zero; more are answered
    with status 503. 0: none waits."""
    max_wait_seconds: Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, le=3600)] = 120
    """A request that has waited for the first decode worker for so many seconds is answered with status 503. 0: none waits."""


class RouterService(Model):
    """The Service that clients reach the routers by."""

    cluster_ip: (
        Annotated[
            IPAddress,
            immutable("clusterIP", "a Service keeps its address for life, so delete the route and make it again"),
        ]
        | None
    ) = None
    """Address of the Service, from the member's service network; absent: the cluster picks one."""
    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP, NodePort or LoadBalancer."""
    port: Port = 8080
    """Port of the Service."""


class Router(Model):
    """The routers of this route."""

    placement: Placement = Placement.FRONT
    """Front: a Deployment that also picks the decode worker. Sidecar: a container in each decode pod, for a Service or
    gateway in front that has picked it."""
    replicas: Annotated[int, Between(1, MAX_REPLICAS)] = 2
    """Routers with placement Front; with Sidecar there is one in each decode pod."""
    container: RouterContainer
    """The router's container: image, and whatever else of a Kubernetes container is wanted."""
    service: RouterService = RouterService()
    """The Service that clients reach the routers by."""


class InferenceRouteSpec(Model):
    """One model, served by a decode pool and the prefill pools that help it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.localPrefillPoolRef) || !has(self.remotePrefillPoolRefs) || "
            "!self.remotePrefillPoolRefs.exists(pool, pool.name == self.localPrefillPoolRef.name)",
            "localPrefillPoolRef.name: {self.localPrefillPoolRef.name} is among remotePrefillPoolRefs too; a pool is "
            "either in the decode pool's cluster or in another, so remove it from one of them",
            lambda spec: spec.local_prefill_pool_ref not in spec.remote_prefill_pool_refs,
        ),
    )

    model: Annotated[ModelName, immutable("model", "make another InferenceRoute for the other model")]
    """The model as requests say it. Cannot change."""
    decode_pool_ref: Reference
    """The DecodePool. Requests arrive in its cluster."""
    local_prefill_pool_ref: Reference | None = None
    """The PrefillPool in the same cluster; absent: short prompts are prefilled on the decode workers."""
    remote_prefill_pool_refs: Annotated[tuple[Reference, ...], Field(max_length=8), KeyedBy("name")] = ()
    """PrefillPools in other clusters, each with a KVLink from there."""
    policy: Policy = Policy()
    """How the router decides where a request's prefill goes."""
    slo: ServiceLevelObjective = ServiceLevelObjective()
    """What requests of this route should see."""
    limits: Limits = Limits()
    """What the router accepts, and how long it waits."""
    router: Router
    """The routers of this route."""


class RouterStatus(StatusModel):
    """What one router said about the configuration."""

    name: Subdomain
    """Name of the router's pod."""
    cluster: Name
    """The MemberCluster that it runs in."""
    version: Whole
    """The version of the configuration that it serves; 0 for none."""
    acknowledged: Flag
    """Whether that is the newest version."""
    message: Message = ""
    """Why it refused the newest version; empty if it did not."""


class ConfigurationStatus(StatusModel):
    """Which routers have the newest configuration."""

    version: Whole
    """The newest version that was published."""
    routers: Annotated[tuple[RouterStatus, ...], KeyedBy("name")] = ()
    """The routers that are connected to the operator."""


class InferenceRouteStatus(Status):
    """What the operator observed of a route."""

    threshold_tokens: Whole | None = None
    """The threshold in force."""
    threshold_source: ThresholdSource | None = None
    """Fixed: from the spec. Measured: from profiles, replicas, link and the lengths that routers report. Computed: the same with
    the lengths of the paper's case study. Held: the last one, since an input is missing."""
    threshold_why: Message | None = None
    """How the threshold came about, for people: what binds, or what is missing."""
    bandwidth: Bandwidth | None = None
    """The rule in force: Scarce or Abundant."""
    predicted_requests_per_second: Measured | None = None
    """Throughput that the model predicts for this threshold and the ready workers."""
    plan: RoutePlan | None = None
    """What the operator has planned, why, and what comes of it."""
    roles: RolesStatus | None = None
    """How many instances have changed roles; absent with fixed roles."""
    configuration: ConfigurationStatus | None = None
    """Which routers have the newest configuration."""
    routers_ready: Annotated[Term, Field(pattern="^[0-9]+/[0-9]+$")] | None = None
    """Routers with the newest configuration, of those that should run, such as 2/2."""


class InferenceRoute(Resource):
    """One model, served by a decode pool and the prefill pools that help it, behind routers that decide for each request
    where its prefill runs."""

    definition: ClassVar[Definition] = Definition(
        plural="inferenceroutes",
        short_name="iroute",
        columns=(
            Column("Model", ".spec.model", "The model, as requests say it."),
            Column("Mode", ".spec.policy.mode", "Enforce, Shadow or LocalOnly."),
            Column("Threshold", ".status.thresholdTokens", "Uncached tokens above which prefill is remote.", "integer"),
            Column("Bandwidth", ".status.bandwidth", "Scarce or Abundant.", priority=1),
            Column(
                "Expected",
                ".status.plan.expectedRequestsPerSecond",
                "Requests/s that can be carried.",
                "number",
                priority=1,
            ),
            Column("Measured", ".status.plan.measuredRequestsPerSecond", "Requests/s that come.", "number", priority=1),
            Column("Plan", ".status.plan.message", "What is planned, and why.", priority=1),
            Column("Routers", ".status.routersReady", "Routers with the newest configuration."),
            READY,
            REASON,
            AGE,
        ),
        selectable=(".spec.model", ".spec.decodePoolRef.name"),
    )
    rules: ClassVar[tuple[Rule, ...]] = (named_like_a_service(56, "its Service has the name with '-router' behind"),)

    kind: Literal["InferenceRoute"] = "InferenceRoute"
    spec: InferenceRouteSpec
    """What is asked for."""
    status: InferenceRouteStatus = InferenceRouteStatus()
    """What the operator observed."""
