"""`prfaas up`, `prfaas status` and `prfaas down`: the local environment."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
import yaml
from rich.console import Console

from prfaas_cli import observation, replaying, report, trace, tree
from prfaas_cli.installation import POD_LABELS, Installation
from prfaas_cli.manifests import ManifestError, Manifests
from prfaas_local.environment import Environment, Settings
from prfaas_local.errors import LocalClusterError

MANIFESTS = Path("e2e/manifests")
CHARTS = Path("charts")
LINK_DELAY_S = 0.001
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
@click.option("--manifests", "manifest_folder", type=click.Path(path_type=Path), default=MANIFESTS, show_default=True,
              help="Folder of the objects to apply.")  # fmt: skip
@click.option("--charts", "chart_folder", type=click.Path(path_type=Path), default=CHARTS, show_default=True,
              help="Folder of the Helm charts.")  # fmt: skip
@replaying.trace_options
@click.option("--replay/--no-replay", "replays", default=True, show_default=True, help="Serve the trace.")
@click.pass_obj
def up_command(
    console: Console, state_dir: Path, manifest_folder: Path, chart_folder: Path, path: Path, limit: int | None,
    speed: float, replays: bool,
) -> None:  # fmt: skip
    """Start a hub and two members, install PrfaaS, and serve a trace. Interrupted, it leaves nothing behind."""
    requests = replaying.load(path, limit) if replays else ()
    try:
        manifests = Manifests.load(manifest_folder)
        environment = make_environment(state_dir, manifests)
        installation = Installation(environment, chart_folder, manifests)
        with _started(environment, console) as begun_s:
            installation.install(_teller(console, begun_s))
            url = installation.wait_ready()
            _first_token(url, installation.model)
            console.print(f"[bold]first routed token after {time.monotonic() - begun_s:.1f} s[/], router at {url}")
            summary = _serve(console, installation, url, requests, speed) if replays else None
    except (LocalClusterError, ManifestError) as error:
        raise click.ClickException(str(error)) from error
    console.print(
        f"It goes on running: [bold]prfaas status[/], KUBECONFIG={environment.folder / 'kubeconfig'} "
        "(contexts hub, east, west), [bold]prfaas down[/].",
        soft_wrap=True,
    )
    if summary is not None and summary.errors:
        sys.exit(1)


@click.command("status")
@state_option
@click.pass_obj
def status_command(console: Console, state_dir: Path) -> None:
    """Show the objects of the local environment as a tree."""
    environment = _existing(state_dir)
    try:
        environment.supervisor.status()
        console.print(tree.draw(environment))
    except LocalClusterError as error:
        raise click.ClickException(str(error)) from error


@click.command("down")
@state_option
@click.option("--keep-state", is_flag=True, help="Keep etcd's data, certificates and logs for the next `prfaas up`.")
@click.pass_obj
def down_command(console: Console, state_dir: Path, keep_state: bool) -> None:
    """Stop everything of the local environment, and remove its state."""
    with console.status("stopping"):
        left = _existing(state_dir).stop()
    if left:
        console.print(f"{left} processes had outlived their supervisor and were stopped")
    if not keep_state:
        shutil.rmtree(state_dir, ignore_errors=True)
    console.print("nothing is running" + (f"; state is kept in {state_dir}" if keep_state else ""))


def make_environment(folder: Path, manifests: Manifests, link_delay_s: float = LINK_DELAY_S) -> Environment:
    """Return the environment for manifests, whose KVLink says what the link between the members carries."""
    return Environment(folder, Settings(manifests.link_capacity_bps, link_delay_s, POD_LABELS))


def _existing(folder: Path) -> Environment:
    """Return an environment to look at or to stop; its settings do not matter for that."""
    return Environment(folder, Settings(1e9, 0.0, POD_LABELS))


@contextmanager
def _started(environment: Environment, console: Console) -> Iterator[float]:
    """Start the environment unless it runs, and yield when that began; what was started ends if the work does not succeed."""
    begun_s = time.monotonic()
    try:
        environment.supervisor.status()
    except LocalClusterError:
        pass
    else:
        console.print("the environment is running; installing into it")
        yield begun_s
        return
    cancelled = threading.Event()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        environment.start(_teller(console, begun_s), cancelled.is_set)
        _write_kubeconfig(environment)
        yield begun_s
        environment.supervisor.detach()
    except BaseException as error:
        cancelled.set()
        if isinstance(error, KeyboardInterrupt):
            console.print("interrupted; stopping everything")
        environment.stop(grace_s=2.0)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _teller(console: Console, begun_s: float) -> Callable[[str], None]:
    """Return a function that prints a step with the time since the beginning."""
    return lambda line: console.print(f"[dim]{time.monotonic() - begun_s:6.1f} s[/]  {line}", highlight=False)


def _write_kubeconfig(environment: Environment) -> None:
    """Write one kubeconfig with a context for each cluster, of which the hub is the current one."""
    merged: dict[str, object] = {"apiVersion": "v1", "kind": "Config", "current-context": environment.hub.name}
    parts = [yaml.safe_load(cluster.admin_kubeconfig.read_text()) for cluster in environment.clusters.values()]
    for section in ("clusters", "users", "contexts"):
        merged[section] = [entry for part in parts for entry in part[section]]
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
    environment = installation.environment
    start_s = time.time()
    summary = replaying.run(console, url, installation.model, requests, speed, ANSWER_S)
    try:
        seen = observation.observe(
            environment.prometheus_url, start_s, time.time(), environment.settings.link_capacity_bps
        )
    except httpx.HTTPError as error:
        console.print(f"[red]Prometheus does not answer[/] ({error}); link and replicas are not known")
    else:
        report.print_observation(console, seen)
    return summary
