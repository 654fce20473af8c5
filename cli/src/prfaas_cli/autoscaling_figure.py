"""The figure of `prfaas autoscale replay`: signals and their targets, and replicas below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from prfaas_cli.autoscaling_replay import Look, Outcome
from prfaas_core.autoscaling import Reading, TargetType

SUFFIXES = (".svg", ".png")


def write(path: Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Draw what was seen by each autoscaler and what it set.

    Raises:
        OSError: the file cannot be written.
    """
    names = [reading.name for reading in outcomes[0].looks[0].readings]
    begin_s = outcomes[0].looks[0].at_s
    # Without a salt of its own, every run names the parts of an SVG anew, and files differ that show the same.
    with mpl.rc_context({"svg.hashsalt": "prfaas", "font.size": 9}):
        figure = Figure(figsize=(8.0, 1.8 * len(names) + 2.4), layout="constrained")
        *above, below = figure.subplots(len(names) + 1, 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(above, names, strict=True):
            for outcome in outcomes:
                hours, values = [], []
                for look in outcome.looks:
                    reading = _reading(look, name)
                    hours.append((look.at_s - begin_s) / 3600)
                    values.append(reading.value if reading.value is not None else math.nan)
                axes.plot(hours, values, linewidth=0.8, label=outcome.name)
            # What the first one's replicas are there for: a total is shared by them.
            first = outcomes[0].looks
            targets = [_target(look, name) for look in first]
            hours = [(look.at_s - begin_s) / 3600 for look in first]
            axes.step(hours, targets, where="post", color="black", linestyle=":", linewidth=1.0, label="target")
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        for outcome in outcomes:
            hours = [(look.at_s - begin_s) / 3600 for look in outcome.looks]
            below.step(hours, [look.replicas for look in outcome.looks], where="post", label=outcome.name)
        below.set_ylabel("replicas")
        below.set_xlabel("hours")
        below.set_ylim(bottom=0)
        below.grid(alpha=0.3)
        below.legend(frameon=False, ncols=len(outcomes))
        figure.suptitle(title)
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def _reading(look: Look, name: str) -> Reading:
    return next(found for found in look.readings if found.name == name)


def _target(look: Look, name: str) -> float:
    reading = _reading(look, name)
    return reading.target * (look.replicas if reading.target_type is TargetType.AVERAGE_VALUE else 1)
