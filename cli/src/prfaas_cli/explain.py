"""`prfaas explain pool`: what the autoscaler saw of a pool, what it asked, what it decided, and when it looks again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import kubernetes
import urllib3
from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from prfaas_cli.local import default_folder
from prfaas_core.autoscaling import TargetType
from prfaas_operator import api
from prfaas_operator.api.conditions import Condition, ConditionStatus, ConditionType
from prfaas_operator.api.scaling_status import AutoscalingStatus, LoadForecast, SignalStatus

_KINDS: Final[tuple[type[api.Pool], ...]] = (api.PrefillPool, api.DecodePool)
_TIMEOUT_S: Final = 10.0
_COLOURS: Final = {ConditionStatus.TRUE: "green", ConditionStatus.FALSE: "red", ConditionStatus.UNKNOWN: "yellow"}


@click.group("explain")
def explain_command() -> None:
    """Say why things are as they are."""


@explain_command.command("pool")
@click.argument("name")
@click.option("-n", "--namespace", help="Of the pool; without it, all are searched.")
@click.option("--kubeconfig", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Of the hub; without it: that of the local environment if there is one, otherwise kubectl's.")  # fmt: skip
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--promql", is_flag=True, help="Show the queries too.")
@click.pass_obj
def pool_command(
    console: Console, name: str, namespace: str | None, kubeconfig: Path | None, context: str | None, promql: bool
) -> None:
    """Show what was seen of a pool, asked, decided, and when it will be looked at again."""
    found = _pools(name, namespace, kubeconfig, context)
    if not found:
        where = f"in namespace {namespace}" if namespace else "in any namespace"
        raise click.ClickException(f"no PrefillPool or DecodePool {name} {where}; kubectl get pfp,dcp -A lists them")
    now = datetime.now(UTC)
    for pool in found:
        console.print(described(pool, now, promql=promql))


def described(pool: api.Pool, now: datetime, *, promql: bool) -> RenderableType:
    """Return a pool's size and how it came about, as of `now`; with `promql`, what Prometheus was asked."""
    parts: list[RenderableType] = [_headline(pool), *_conditions(pool)]
    seen, scaling = pool.status.autoscaling, pool.spec.scaling
    if scaling is None:
        return Group(*parts)
    if seen is None:
        return Group(*parts, Text("Nothing was decided yet.", style="yellow"))
    parts.append(_signals(seen.signals))
    if promql:
        parts += [Text(f"  {signal.name}: {signal.query}", style="dim") for signal in seen.signals if signal.query]
    parts += _decision(seen, now)
    if seen.forecast is not None:
        parts.append(_forecast(seen.forecast))
    if seen.decisions:
        parts.append(_decisions(seen))
    return Group(*parts)


def _pools(name: str, namespace: str | None, kubeconfig: Path | None, context: str | None) -> list[api.Pool]:
    local = default_folder() / "kubeconfig"
    if kubeconfig is None and local.is_file():
        kubeconfig = local
    try:
        client = kubernetes.config.new_client_from_config(
            config_file=str(kubeconfig) if kubeconfig is not None else None, context=context
        )
    except kubernetes.config.ConfigException as error:
        raise click.ClickException(f"--kubeconfig: {error}; name the kubeconfig of the hub") from error
    objects = kubernetes.client.CustomObjectsApi(client)
    found: list[api.Pool] = []
    for kind in _KINDS:
        try:
            listed = objects.list_cluster_custom_object(
                api.GROUP, api.VERSION, kind.definition.plural, field_selector=f"metadata.name={name}",
                _request_timeout=_TIMEOUT_S,
            ) if namespace is None else objects.list_namespaced_custom_object(
                api.GROUP, api.VERSION, namespace, kind.definition.plural, field_selector=f"metadata.name={name}",
                _request_timeout=_TIMEOUT_S,
            )  # fmt: skip
        except kubernetes.client.ApiException as error:
            raise click.ClickException(f"the hub refuses to list {kind.__name__}s: {error.reason}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise click.ClickException(f"the hub does not answer: {error}") from error
        found += [_read(kind, item) for item in listed["items"]]
    return found


def _read(kind: type[api.Pool], item: dict[str, Any]) -> api.Pool:
    try:
        return kind.read({"apiVersion": api.API_VERSION, "kind": kind.__name__, **item})
    except ValidationError as error:
        raise click.ClickException(f"{kind.__name__} {item['metadata']['name']}: {api.explain(error)}") from error


def _headline(pool: api.Pool) -> Text:
    scaling, status = pool.spec.scaling, pool.status
    bounds = "" if scaling is None else f", {scaling.min_replicas} to {scaling.max_replicas} allowed"
    numbers = f"{_number(status.desired_replicas)} workers asked for, {_number(status.ready_replicas)} ready{bounds}"
    title = f"[bold]{type(pool).__name__}[/] {pool.metadata.namespace}/{pool.metadata.name}"
    return Text.from_markup(f"{title} in {escape(pool.spec.cluster_ref.name)}: {numbers}")


def _conditions(pool: api.Pool) -> list[Text]:
    wanted = (ConditionType.REPLICAS_OWNED, ConditionType.SCALING, ConditionType.READY)
    found = (pool.status.condition(type_) for type_ in wanted)
    return [_condition(condition) for condition in found if condition is not None]


def _condition(condition: Condition) -> Text:
    colour = _COLOURS[condition.status]
    return Text.from_markup(
        f"  {condition.type} [{colour}]{condition.status}[/] {condition.reason}: {escape(condition.message)}"
    )


def _signals(signals: tuple[SignalStatus, ...]) -> Table:
    table = Table("signal", "value", "target", "asks for", "why", title="seen", title_justify="left")
    for signal in signals:
        each = " each" if signal.target_type is TargetType.AVERAGE_VALUE else ""
        table.add_row(
            signal.name + (" (guard)" if signal.guard else ""),
            "?" if signal.value is None else f"{signal.value:.4g}",
            f"{signal.target_value:g}{each}",
            _number(signal.proposed_replicas),
            signal.reason + (f": {signal.message}" if signal.message else ""),
        )
    return table


def _decision(seen: AutoscalingStatus, now: datetime) -> list[Text]:
    if seen.last_decision is None:
        return []
    decision = seen.last_decision
    age_s = max(0.0, (now - decision.time).total_seconds())
    lines = [Text.from_markup(f"decided [bold]{decision.reason}[/] {age_s:.0f} s ago: {escape(decision.message)}")]
    if seen.period_seconds is not None:
        lines.append(Text(f"looks again every {seen.period_seconds:g} s; the status is written when there is news"))
    return lines


def _decisions(seen: AutoscalingStatus) -> Table:
    table = Table("when", "workers", "why", "", title="last decisions", title_justify="left")
    for record in seen.decisions:
        table.add_row(
            f"{record.time.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{record.from_replicas} to {record.to_replicas}",
            record.reason,
            Text(record.message),
        )
    return table


def _forecast(forecast: LoadForecast) -> Text:
    if forecast.predicted_replicas is None or forecast.target_time is None:
        return Text(f"forecast: none; {forecast.message}")
    error = "" if forecast.error is None else f", so far wrong by {forecast.error:.0%} on the average"
    return Text(
        f"forecast: {forecast.predicted_replicas} workers at {forecast.target_time.astimezone():%H:%M}{error}; {forecast.message}"
    )


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
