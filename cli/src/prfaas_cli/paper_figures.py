"""The figures of `prfaas paper`, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prfaas_core.reproduction import figures


def write(folder: Path, suffix: str) -> tuple[Path, ...]:
    """Write every figure into `folder` as svg or png, and return the paths.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[Axes], None]] = {
        "figure-5a-roles": _roles,
        "figure-5b-threshold": _thresholds,
        "slow-links": _slow_links,
    }
    # Without a salt of its own, every run names the parts of an SVG anew, and files differ that show the same.
    with mpl.rc_context({"svg.hashsalt": "prfaas", "font.size": 9}):
        return tuple(_draw(folder / f"{name}.{suffix}", draw) for name, draw in drawings.items())


def _draw(path: Path, draw: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_ylabel("requests/s")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _roles(axes: Axes) -> None:
    for line in figures.roles():
        axes.plot(line.x, line.y, marker="o", label=line.label)
    axes.plot([3], [3.24], "k*", markersize=11, label="the paper's optimum")
    axes.set_xlabel("local prefill instances N_p, of 8")
    axes.set_title("Figure 5a: roles at t = 19.4K")


def _thresholds(axes: Axes) -> None:
    for line in figures.thresholds(tuple(float(t) for t in range(5, 61))):
        axes.plot(line.x, line.y, label=line.label, linewidth=2.4 if line.label == "Lambda_max" else 1.2)
    axes.plot([19.4], [3.24], "k*", markersize=11, label="the paper's optimum")
    axes.set_ylim(0, 8)
    axes.set_xlabel("threshold t, thousands of tokens")
    axes.set_title("Figure 5b: threshold at N_p = 3, N_d = 5")


def _slow_links(axes: Axes) -> None:
    for line in figures.slow_links():
        axes.plot(line.x, line.y, label=line.label, marker=".")
    axes.set_xlim(0, 14)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("link, Gbit/s")
    axes.set_title("Not in the paper: a slow link")
