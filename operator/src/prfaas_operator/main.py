"""The command `prfaas-operator`."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import kopf
import structlog
from kubernetes.aio.client import ApiClient

from prfaas_operator import api, handlers, logs
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.credentials import hub_configuration
from prfaas_operator.clusters.resources import OWN
from prfaas_operator.hub import Hub
from prfaas_operator.lease import Lease, LeaseLostError
from prfaas_operator.metrics import Metrics
from prfaas_operator.options import Options
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.status_server import StatusServer

_log = structlog.get_logger(__name__)

_CRDS_AGAIN_S = 2.0


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, str]:
    """Return the options and the log level."""
    defaults = Options(advertise_address="", tls_dir=Path(), namespace="", identity="")
    parser = argparse.ArgumentParser(
        prog="prfaas-operator",
        description="Turns the objects of the group prfaas.dev on a hub into workloads in member clusters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=defaults.host, help="address to listen on")
    add("--http-port", type=_port, default=defaults.http_port, help="port of /healthz and /metrics")
    add("--grpc-port", type=_port, default=defaults.grpc_port, help="port of the routers' configuration")
    add("--external-metrics-port", type=_port,
        help="port of the API external.metrics.k8s.io for HorizontalPodAutoscalers; without it that is not served")  # fmt: skip
    add("--external-scaler-port", type=_port,
        help="port of the external scaler for KEDA; without it that is not served")  # fmt: skip
    add(
        "--external-scaler-tls", action="store_true", help="serve the external scaler with the certificate of --tls-dir"
    )
    add("--advertise-address", required=True, metavar="HOST:PORT", help="where routers reach --grpc-port")
    add("--tls-dir", type=Path, default=Path("/etc/prfaas/tls"), help="folder with tls.crt, tls.key and ca.crt")
    add("--namespace", action="append", default=[], help="namespace of the hub to work on, repeatedly; without it: all")
    add("--kubeconfig", type=Path, help="of the hub, to run outside of it; without it: the pod's ServiceAccount")
    _add_prometheus(add, defaults.prometheus)
    add(
        "--autoscaling-interval-s",
        type=_seconds,
        default=defaults.autoscaling_interval_s,
        help="time between decisions",
    )
    add("--link-interval-s", type=_seconds, default=defaults.link_interval_s, help="time between readings of links")
    add("--role-interval-s", type=_seconds, default=defaults.role_interval_s,
        help="time between decisions on the roles of instances, for routes that have policy.roles.mode Auto")  # fmt: skip
    add("--deletion-deadline-s", type=_seconds, default=defaults.deletion_deadline_s,
        help="time after which a deletion ends although a member does not answer")  # fmt: skip
    add("--leader-election", action=argparse.BooleanOptionalAction, default=defaults.elect,
        help="hold a Lease while writing, so that one operator at a time does")  # fmt: skip
    add("--leader-election-name", default=defaults.lease_name, help="name of the Lease")
    add("--operator-namespace", default=os.environ.get("POD_NAMESPACE", "prfaas-system"),
        help="namespace of the operator's own objects: Lease, kept snapshots, ledger")  # fmt: skip
    add("--identity", default=os.environ.get("POD_NAME") or socket.gethostname(), help="name in the Lease")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="least level that is logged")
    found = parser.parse_args(arguments)
    host, _, port = found.advertise_address.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--advertise-address: {found.advertise_address!r} is not HOST:PORT")
    options = Options(
        advertise_address=found.advertise_address,
        tls_dir=found.tls_dir,
        namespace=found.operator_namespace,
        # A pod that is restarted in place keeps its name, and must not take its own old Lease for its present one.
        identity=f"{found.identity}_{os.getpid()}_{os.urandom(4).hex()}",
        host=found.host,
        http_port=found.http_port,
        grpc_port=found.grpc_port,
        external_metrics_port=found.external_metrics_port,
        external_scaler_port=found.external_scaler_port,
        external_scaler_tls=found.external_scaler_tls,
        watched_namespaces=tuple(sorted(set(found.namespace))),
        kubeconfig=found.kubeconfig,
        prometheus=_prometheus(parser, found),
        autoscaling_interval_s=found.autoscaling_interval_s,
        link_interval_s=found.link_interval_s,
        role_interval_s=found.role_interval_s,
        deletion_deadline_s=found.deletion_deadline_s,
        lease_name=found.leader_election_name,
        elect=found.leader_election,
    )
    return options, found.log_level


def _add_prometheus(add: Callable[..., object], defaults: PrometheusFiles) -> None:
    """Add the options of the Prometheus that knows the workers of all members that have none of their own."""
    add("--prometheus-url", help="base URL of Prometheus; without one, a member's or this, pools with scaling hold their replicas")  # fmt: skip
    add(
        "--prometheus-timeout-s", type=_seconds, default=defaults.timeout_s, help="time that a question may take in all"
    )
    add("--prometheus-header", type=_header, action="append", default=[], metavar="NAME=VALUE",
        help="header of every question, such as a tenant's, repeatedly")  # fmt: skip
    for name, what in (
        ("ca-file", "authorities that its certificate is checked against, as PEM; without it: the public ones"),
        ("client-certificate-file", "certificate to show it, as PEM"),
        ("client-key-file", "key of that certificate, as PEM"),
        ("bearer-token-file", "bearer token"),
        ("username-file", "user of basic authentication"),
        ("password-file", "password of basic authentication"),
        ("header-dir", "folder with a file for each further header, called like the header"),
    ):
        add(f"--prometheus-{name}", type=Path, help=f"{what}; read again when it changes")


def _prometheus(parser: argparse.ArgumentParser, found: argparse.Namespace) -> PrometheusFiles:
    url = found.prometheus_url or None
    if url is not None and (not url.startswith(("http://", "https://")) or set("@?#") & set(url)):
        # Statuses name it, so there can be no password in it.
        parser.error(
            f"--prometheus-url: {url.rpartition('@')[2]!r} is not http(s)://HOST[:PORT][/PATH], without a user"
        )
    for one, other in (("client-certificate-file", "client-key-file"), ("username-file", "password-file")):
        given = [name for name in (one, other) if getattr(found, f"prometheus_{name.replace('-', '_')}") is not None]
        if len(given) == 1:
            parser.error(
                f"--prometheus-{given[0]} is given alone; --prometheus-{one} and --prometheus-{other} go together"
            )
    if found.prometheus_bearer_token_file is not None and found.prometheus_username_file is not None:
        parser.error("--prometheus-bearer-token-file and --prometheus-username-file are both given; remove one of them")
    return PrometheusFiles(
        url=url,
        timeout_s=found.prometheus_timeout_s,
        headers=tuple(found.prometheus_header),
        ca_file=found.prometheus_ca_file,
        client_certificate_file=found.prometheus_client_certificate_file,
        client_key_file=found.prometheus_client_key_file,
        bearer_token_file=found.prometheus_bearer_token_file,
        username_file=found.prometheus_username_file,
        password_file=found.prometheus_password_file,
        header_dir=found.prometheus_header_dir,
    )


def main() -> None:
    """Run until a signal ends it (status 0), or something it cannot go on without is lost (status 1)."""
    options, level = parse()
    logs.configure(level)
    sys.exit(asyncio.run(run(options)))


async def run(options: Options) -> int:
    """Wait for the Lease, then work until the end; return the exit status."""
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if not (options.tls_dir / name).is_file():
            _log.error("a file of --tls-dir is missing", file=str(options.tls_dir / name))
            return 1
    metrics = Metrics()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    hub: Hub | None = None
    server = StatusServer(
        metrics, lambda: hub.fault() if hub is not None else None, host=options.host, port=options.http_port
    )
    await server.start()
    configuration = await hub_configuration(options.kubeconfig)
    client = ApiClient(configuration)
    # Short calls, so that one that hangs leaves time for another before the Lease runs out.
    own = ClusterApi(client, timeout_s=options.lease.trust_s / 3)
    lease = (
        Lease(own, options.namespace, options.lease_name, options.identity, options.lease) if options.elect else None
    )
    try:
        if lease is not None and not await _until(stopped, lease.acquire()):
            return 0
        if not await _until(stopped, _crds(own, options)):
            return 0
        hub = Hub(options, configuration, lease, metrics)
        return await _work(options, hub, lease, stopped)
    finally:
        if lease is not None:
            await lease.release()
        await client.close()
        await server.stop()


async def _work(options: Options, hub: Hub, lease: Lease | None, stopped: asyncio.Event) -> int:
    """Run Kopf until it ends, a signal comes, or the Lease is lost."""
    operator = asyncio.create_task(
        kopf.operator(
            registry=handlers.register(hub),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not options.watched_namespaces,
            namespaces=options.watched_namespaces,
            stop_flag=stopped,
        ),
        name="kopf",
    )
    tasks: set[asyncio.Task[None]] = {operator}
    keeper = None
    if lease is not None:
        keeper = asyncio.create_task(lease.keep(), name="lease")
        tasks.add(keeper)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    failed = False
    if keeper is not None and keeper.done() and isinstance(keeper.exception(), LeaseLostError):
        _log.error("stopping", why=str(keeper.exception()))
        failed = True
    stopped.set()
    try:
        await operator
    except Exception:  # noqa: BLE001  whatever ended Kopf ends the process
        _log.exception("the hub's watch ended")
        failed = True
    if keeper is not None:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    return 1 if failed else 0


async def _crds(own: ClusterApi, options: Options) -> None:
    """Return when the hub knows the operator's kinds: Kopf looks for them once, when it starts."""
    told = False
    namespaces = options.watched_namespaces or (None,)
    while True:
        try:
            for resource in OWN:
                for namespace in namespaces:
                    await own.list(resource, namespace)
        except ApiError as error:
            if not told:
                _log.warning("waiting for the CRDs and the rights to read them", group=api.GROUP, error=str(error))
                told = True
        else:
            return
        await asyncio.sleep(_CRDS_AGAIN_S)


async def _until(stopped: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Wait for work to be done; return False when the process is asked to stop before that."""
    task, stop = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    await task
    return True


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port; give 0 to 65535")
    return number


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time; give seconds above 0")
    return number


if __name__ == "__main__":
    main()
