"""The `prfaas` command."""

from __future__ import annotations

import click
from rich.console import Console

from prfaas_cli.autoscaling import autoscale_command
from prfaas_cli.evaluating import evaluate_command
from prfaas_cli.explain import explain_command
from prfaas_cli.local import down_command, status_command, up_command
from prfaas_cli.paper import paper_command
from prfaas_cli.plan import plan_command
from prfaas_cli.replaying import replay_command
from prfaas_cli.whatif import whatif_command


@click.group()
@click.version_option(package_name="prfaas")
@click.pass_context
def cli(context: click.Context) -> None:
    """Prefill as a service: long prefills in another cluster."""
    context.obj = Console()


for command in (
    up_command,
    status_command,
    down_command,
    replay_command,
    paper_command,
    plan_command,
    evaluate_command,
    whatif_command,
    autoscale_command,
    explain_command,
):
    cli.add_command(command)


def main() -> None:
    """Run the command."""
    cli()
