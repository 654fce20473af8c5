"""MemberCluster: a cluster that workers and routers run in."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from prfaas_operator.api.model import Model
from prfaas_operator.api.prometheus import PrometheusAccess
from prfaas_operator.api.references import SecretKeyReference
from prfaas_operator.api.resource import AGE, REASON, Column, Definition, Resource, named_like_a_label
from prfaas_operator.api.rules import Rule, immutable
from prfaas_operator.api.scalars import Flag, LabelValue, Term
from prfaas_operator.api.status import Status


class MemberClusterSpec(Model):
    """How to reach a cluster, and where it is."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.hub || has(self.kubeconfigSecretRef)",
            "neither kubeconfigSecretRef nor hub: true is given; name the Secret with the cluster's kubeconfig, or set "
            "hub: true if it is the cluster that holds this object",
            lambda spec: spec.hub or spec.kubeconfig_secret_ref is not None,
        ),
        Rule(
            "!(self.hub && has(self.kubeconfigSecretRef))",
            "hub: true and kubeconfigSecretRef are both given; the hub is reached with the operator's own "
            "ServiceAccount, so remove one of them",
            lambda spec: not (spec.hub and spec.kubeconfig_secret_ref is not None),
        ),
    )

    kubeconfig_secret_ref: SecretKeyReference | None = None
    """The Secret with a kubeconfig of the cluster. Exactly one of kubeconfigSecretRef and hub: true is given."""
    hub: Annotated[Flag, immutable("hub", "make another MemberCluster for the other cluster")] = False
    """True: the cluster is the hub itself, reached with the operator's own ServiceAccount. Cannot change."""
    prometheus: PrometheusAccess | None = None
    """The Prometheus that knows this cluster's workers; absent: the operator's own."""
    region: LabelValue | None = None
    """Where the cluster is, for people and for the labels of metrics."""
    labels: Annotated[dict[str, LabelValue], Field(max_length=64, default_factory=dict)]
    """Labels of the cluster, to select it by."""


class MemberClusterStatus(Status):
    """What the operator observed of a cluster."""

    reachable: Flag | None = None
    """Whether the last probe was answered; absent while none was made."""
    version: Term | None = None
    """Kubernetes version of the cluster's API server."""
    last_probe_time: AwareDatetime | None = None
    """When the cluster was last probed."""


class MemberCluster(Resource):
    """A cluster that workers and routers run in."""

    definition: ClassVar[Definition] = Definition(
        plural="memberclusters",
        short_name="mcl",
        columns=(
            Column("Region", ".spec.region", "Where the cluster is."),
            Column(
                "Reachable",
                '.status.conditions[?(@.type=="Reachable")].status',
                "Whether its API server answers and accepts the credentials.",
            ),
            REASON,
            Column("Version", ".status.version", "Kubernetes version of its API server."),
            Column("Probed", ".status.lastProbeTime", "Time since it was last probed.", "date"),
            AGE,
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (named_like_a_label("it becomes a label of metrics"),)

    kind: Literal["MemberCluster"] = "MemberCluster"
    spec: MemberClusterSpec
    """What is asked for."""
    status: MemberClusterStatus = MemberClusterStatus()
    """What the operator observed."""
