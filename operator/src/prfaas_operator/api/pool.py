"""What PrefillPool and DecodePool have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from prfaas_core.autoscaling import SignalName
from prfaas_operator.api.containers import PodTemplate
from prfaas_operator.api.model import Model
from prfaas_operator.api.references import ProfileReference, Reference
from prfaas_operator.api.resource import AGE, READY, REASON, Column, Definition, Resource, named_like_a_service
from prfaas_operator.api.rules import Rule, immutable
from prfaas_operator.api.scalars import Between, Message, PodsOrPercent, Port, Replicas, Term, Whole
from prfaas_operator.api.scaling import Scaling
from prfaas_operator.api.scaling_status import AutoscalingStatus
from prfaas_operator.api.status import Status


class Ports(Model):
    """The ports of a worker."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.http != self.kv",
            "http and kv are both {self.http}; give each a port of its own",
            lambda ports: ports.http != ports.kv,
        ),
    )

    http: Port = 8000
    """HTTP: the OpenAI API, health and metrics."""
    kv: Port = 5600
    """Side channel of the KV transfer."""


class PodDisruptionBudget(Model):
    """What voluntary disruptions, such as drained nodes, may take at once."""

    max_unavailable: PodsOrPercent = 1
    """Workers that may be away at once: a number, or a percentage such as 25%."""


class Drain(Model):
    """How a worker that is no longer asked for goes: it gets no new work, finishes what it has, and its KV is fetched."""

    timeout_seconds: Annotated[int, Between(0, 86_400)] = 300
    """Seconds after which it goes even if it is not done. Pods get so much time in a rollout too, so another value rolls the
    pool, unless its template has a terminationGracePeriodSeconds of its own."""


def signal_rule(kind: str, built_in: tuple[SignalName, ...]) -> Rule:
    """Return the rule that a pool is sized by the built-in signals of its own side, or by queries."""
    allowed = (*built_in, SignalName.QUERY)
    names = ", ".join(f"'{name}'" for name in allowed)
    return Rule(
        f"!has(self.scaling) || !has(self.scaling.signals) || self.scaling.signals.all(signal, signal.name in [{names}])",
        f"scaling.signals: one of them is not measured on a {kind}; use {', '.join(allowed)}",
        lambda spec: spec.scaling is None or all(signal.name in allowed for signal in spec.scaling.signals or ()),
    )


REPLICAS_XOR_SCALING: Final = (
    Rule(
        "has(self.replicas) || has(self.scaling)",
        "neither replicas nor scaling is given; set replicas for a fixed number of workers (kubectl scale and a "
        "HorizontalPodAutoscaler change it later), or scaling to have PrfaaS size the pool",
        lambda spec: spec.replicas is not None or spec.scaling is not None,
    ),
    Rule(
        "!(has(self.replicas) && has(self.scaling))",
        "replicas {self.replicas} and scaling are both given; this pool is sized within scaling.minReplicas and "
        "scaling.maxReplicas, so change those, or remove scaling to set replicas",
        lambda spec: spec.replicas is None or spec.scaling is None,
    ),
)


class PoolSpec(Model):
    """Workers of one model in one member cluster."""

    rules: ClassVar[tuple[Rule, ...]] = REPLICAS_XOR_SCALING

    cluster_ref: Annotated[
        Reference,
        immutable(
            "clusterRef",
            "make another pool in the other cluster, and delete this one when the route no longer uses it",
            shown=".name",
        ),
    ]
    """The MemberCluster that the workers run in. Cannot change."""
    profile_ref: ProfileReference
    """The ModelProfile of the workers: model and KV identity, service times, capacity. Another model, engine or KV rolls the
    pool; other times or prices do not, except with the stand-ins."""
    replicas: Replicas | None = None
    """A fixed number of workers, which `kubectl scale` changes. Exactly one of replicas and scaling is given."""
    scaling: Scaling | None = None
    """Bounds and signals for a number of workers that follows the load. Exactly one of replicas and scaling is given."""
    drain: Drain = Drain()
    """How a worker that is no longer asked for goes."""
    template: PodTemplate
    """The pod of a worker, a Kubernetes PodTemplateSpec. The first container is the worker."""
    ports: Ports = Ports()
    """The ports of a worker."""
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()
    """What voluntary disruptions, such as drained nodes, may take at once."""


class PoolStatus(Status):
    """What the operator observed of a pool."""

    replicas: Whole | None = None
    """Workers that exist."""
    ready_replicas: Whole | None = None
    """Workers that are ready."""
    updated_replicas: Whole | None = None
    """Workers of the newest template and profile."""
    desired_replicas: Whole | None = None
    """Workers that the operator asks for: replicas, what the autoscaler decided, or what roles of a route make of replicas."""
    selector: Message | None = None
    """Label selector of the workers' pods, in text form, for the scale subresource."""
    revision: Term | None = None
    """Identifies template and profile; workers of different revisions are replaced by a rollout."""
    autoscaling: AutoscalingStatus | None = None
    """What the autoscaler saw and decided; absent with fixed replicas."""


def pool_definition(plural: str, short_name: str) -> Definition:
    """Return names, columns and subresources of a kind of pool."""
    return Definition(
        plural=plural,
        short_name=short_name,
        columns=(
            Column("Cluster", ".spec.clusterRef.name", "The member cluster that the workers run in."),
            Column("Profile", ".spec.profileRef.name", "The profile of the workers.", priority=1),
            Column("Desired", ".status.desiredReplicas", "Workers that the operator asks for.", "integer"),
            Column("Serving", ".status.readyReplicas", "Workers that are ready.", "integer"),
            READY,
            REASON,
            AGE,
        ),
        scalable=True,
        selectable=(".spec.clusterRef.name", ".spec.profileRef.name"),
    )


class Pool(Resource):
    """A pool of either side; the kinds set `spec`."""

    # The name is that of the Deployment, of the headless Service and of a label's value.
    rules: ClassVar[tuple[Rule, ...]] = (named_like_a_service(63, "the pool's Service has the same name"),)

    spec: PoolSpec
    """What is asked for."""
    status: PoolStatus = PoolStatus()
    """What the operator observed."""
