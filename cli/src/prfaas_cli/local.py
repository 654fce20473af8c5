"""`prfaas up`, `prfaas status` and `prfaas down`: the local environment."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
import httpx
import yaml
from rich.console import Console
from rich.markup import escape

from prfaas_cli import observation, providers, replaying, report, trace, tree
from prfaas_cli.environments import LocalEnvironment
from prfaas_cli.installation import ROUTER_PORT, Installation
from prfaas_cli.manifests import ManifestError, Manifests
from prfaas_local.errors import LocalClusterError

MANIFESTS = Path("e2e/manifests")
CHARTS = Path("charts")
ANSWER_S = 120.0


def default_folder() -> Path:
    """Return where the state of the environment is kept: `$XDG_STATE_HOME/prfaas/local`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "prfaas" / "local"


state_option = click.option(
    "--state-dir", type=click.Path(path_type=Path), default=default_folder, help="Where its state and logs are kept."
)


@click.command("up")
@state_option
@click.option("--provider", type=click.Choice(providers.PROVIDERS), default=providers.PROCESSES, show_default=True,
              help="Who makes the clusters: this machine's processes, or kind with Docker.")  # fmt: skip
@click.option("--manifests", "manifest_folder", type=click.Path(path_type=Path), default=MANIFESTS, show_default=True,
              help="Folder of the objects to apply.")  # fmt: skip
@click.option("--charts", "chart_folder", type=click.Path(path_type=Path), default=CHARTS, show_default=True,
              help="Folder of the Helm charts.")  # fmt: skip
@replaying.trace_options
@click.option("--replay/--no-replay", "replays", default=True, show_default=True, help="Serve the trace.")
@click.pass_obj
def up_command(
    console: Console, state_dir: Path, provider: str, manifest_folder: Path, chart_folder: Path, path: Path, limit: int | None,
    speed: float, replays: bool,
) -> None:  # fmt: skip
    """Start a hub and two members, install PrfaaS, and serve a trace. Interrupted, it leaves nothing behind."""
    requests = replaying.load(path, limit) if replays else ()
    try:
        environment, manifests = providers.prepared(provider, state_dir, Manifests.load(manifest_folder))
        installation = Installation(environment, chart_folder, manifests)
        summary = bring_up(console, installation, requests, speed)
    except (LocalClusterError, ManifestError) as error:
        raise click.ClickException(str(error)) from error
    console.print(
        f"It goes on running: [bold]prfaas status[/], KUBECONFIG={environment.folder / 'kubeconfig'} "
        "(contexts hub, east, west), [bold]prfaas down[/].",
        soft_wrap=True,
    )
    if provider == providers.KIND:
        cluster, namespace, service = installation.router_service
        console.print(
            f"The router: kubectl --context={cluster} port-forward -n {namespace} service/{service} {ROUTER_PORT}",
            soft_wrap=True,
        )
    if summary is not None and summary.errors:
        sys.exit(1)


def bring_up(
    console: Console, installation: Installation, requests: tuple[trace.TraceRequest, ...], speed: float
) -> report.ReplaySummary | None:
    """Start the environment of an installation, install, and serve the requests, if there are any."""
    with _started(installation.environment, console) as begun_s:
        installation.install(_teller(console, begun_s))
        url = installation.wait_ready()
        _first_token(url, installation.model)
        console.print(f"[bold]first routed token after {time.monotonic() - begun_s:.1f} s[/], router at {url}")
        return _serve(console, installation, url, requests, speed) if requests else None


@click.command("status")
@state_option
@click.pass_obj
def status_command(console: Console, state_dir: Path) -> None:
    """Show the objects of the local environment as a tree."""
    environment = providers.existing(state_dir)
    try:
        environment.check_running()
        console.print(tree.draw(environment))
    except LocalClusterError as error:
        raise click.ClickException(str(error)) from error


@click.command("down")
@state_option
@click.option("--keep-state", is_flag=True, help="Keep etcd's data, certificates and logs for the next `prfaas up`.")
@click.pass_obj
def down_command(console: Console, state_dir: Path, keep_state: bool) -> None:
    """Stop everything of the local environment, and remove its state."""
    try:
        with console.status("stopping"):
            left = providers.existing(state_dir).stop()
    except LocalClusterError as error:
        raise click.ClickException(str(error)) from error
    if left:
        console.print(f"{left} processes had outlived their supervisor and were stopped")
    if not keep_state:
        shutil.rmtree(state_dir, ignore_errors=True)
    console.print("stopped; nothing is running any more" + (f", state is kept in {state_dir}" if keep_state else ""))


@contextmanager
def _started(environment: LocalEnvironment, console: Console) -> Iterator[float]:
    """Start the environment unless it runs, and yield when that began; what was started ends if the work does not succeed."""
    begun_s = time.monotonic()
    try:
        environment.check_running()
    except LocalClusterError:
        pass
    else:
        console.print("the environment is running; installing into it")
        with closing(environment):
            yield begun_s
        return
    cancelled = threading.Event()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        environment.start(_teller(console, begun_s), cancelled.is_set)
        _write_kubeconfig(environment)
        yield begun_s
        environment.detach()
        environment.close()
    except BaseException as error:
        cancelled.set()
        if isinstance(error, KeyboardInterrupt):
            console.print("interrupted; stopping everything")
        _stop(environment, console)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(environment: LocalEnvironment, console: Console) -> None:
    """Stop what an error ends, which stays the error to tell."""
    try:
        environment.stop(grace_s=2.0)
    except LocalClusterError as left:
        console.print(
            f"[red]not everything is stopped; try again with[/] prfaas down: {escape(str(left))}", highlight=False
        )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _teller(console: Console, begun_s: float) -> Callable[[str], None]:
    """Return a function that prints a step with the time since the beginning."""
    return lambda line: console.print(f"[dim]{time.monotonic() - begun_s:6.1f} s[/]  {line}", highlight=False)


def _write_kubeconfig(environment: LocalEnvironment) -> None:
    """Write one kubeconfig with a context for each cluster, of which the hub is the current one."""
    merged: dict[str, object] = {"apiVersion": "v1", "kind": "Config", "current-context": environment.hub.name}
    parts = [yaml.safe_load(cluster.admin_kubeconfig.read_text()) for cluster in environment.clusters.values()]
    for section in ("clusters", "users"):
        merged[section] = [entry for part in parts for entry in part[section]]
    merged["contexts"] = [
        part["contexts"][0] | {"name": name} for name, part in zip(environment.clusters, parts, strict=True)
    ]
    path = environment.folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")


def _first_token(url: str, model: str, deadline_s: float = 30.0) -> None:
    """Wait for one answered request. Workers that are ready may not all have reached the router yet."""
    end_s = time.monotonic() + deadline_s
    while True:
        try:
            answer = httpx.post(
                f"{url}/v1/completions",
                json={"model": model, "prompt": "ready?", "max_tokens": 1},
                timeout=10,
                trust_env=False,
            )
            if answer.is_success:
                return
            told = answer.text[:300]
        except httpx.TransportError as error:
            told = str(error)
        if time.monotonic() > end_s:
            raise LocalClusterError(f"the router at {url} does not answer a request: {told}")
        time.sleep(0.2)


def _serve(
    console: Console,
    installation: Installation,
    url: str,
    requests: tuple[trace.TraceRequest, ...],
    speed: float,
) -> report.ReplaySummary:
    start_s = time.time()
    summary = replaying.run(console, url, installation.model, requests, speed, ANSWER_S)
    try:
        seen = observation.observe(
            installation.environment.prometheus_url, start_s, time.time(), installation.link_capacity_bps
        )
    except (httpx.HTTPError, LocalClusterError) as error:
        console.print(f"[red]Prometheus does not answer[/] ({error}); link and replicas are not known")
    else:
        report.print_observation(console, seen)
    return summary
