"""What the operator is told on its command line."""

from dataclasses import dataclass, field
from pathlib import Path

from prfaas_operator.clusters.member import MemberTimes
from prfaas_operator.lease import LeaseTimes
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.workqueue import Backoff


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one operator process. Times are in seconds."""

    advertise_address: str  # HOST:PORT at which routers find this operator
    tls_dir: Path
    namespace: str  # of the operator's own objects: Lease, ledger, kept snapshots
    identity: str  # of this process, in the Lease
    host: str = "0.0.0.0"
    http_port: int = 8080
    grpc_port: int = 50051
    external_metrics_port: int | None = None  # None: not served
    external_scaler_port: int | None = None  # None: not served
    external_scaler_tls: bool = False
    watched_namespaces: tuple[str, ...] = ()  # empty: all
    kubeconfig: Path | None = None  # None: the ServiceAccount of the pod
    prometheus: PrometheusFiles = field(default_factory=PrometheusFiles)
    autoscaling_interval_s: float = 5.0
    link_interval_s: float = 10.0
    role_interval_s: float = 300.0
    deletion_deadline_s: float = 120.0
    resync_s: float = 60.0
    probe_heartbeat_s: float = 60.0
    lease_name: str = "prfaas-operator"
    elect: bool = True
    hub_timeout_s: float = 10.0
    members: MemberTimes = field(default_factory=MemberTimes)
    lease: LeaseTimes = field(default_factory=LeaseTimes)
    backoff: Backoff = field(default_factory=Backoff)
