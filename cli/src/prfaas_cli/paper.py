"""`prfaas paper`: the paper's tables and its Figure 5, computed again next to the paper's own numbers."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Sheet

from prfaas_core.reproduction import case_study_tables, figures, qualitative
from prfaas_core.reproduction.cells import Cell, Origin, Table

_STYLES = {
    Origin.PUBLISHED: "dim",
    Origin.FIT: "cyan",
    Origin.DERIVED: "",
    Origin.NOT_REPRODUCIBLE: "yellow",
}


def tables() -> tuple[Table, ...]:
    """Return everything that is printed, in order."""
    return (
        qualitative.table_1(),
        qualitative.table_2(),
        qualitative.table_3(),
        qualitative.table_4(),
        case_study_tables.table_5(),
        case_study_tables.table_6(),
        figures.figure_5(),
        figures.beyond(),
    )


@click.command("paper")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder to write the figures to; it is made if need be.",
)
@click.option(
    "--format", "suffix", type=click.Choice(["svg", "png"]), default="svg", show_default=True, help="Of the figures."
)
@click.pass_obj
def paper_command(console: Console, out: Path | None, suffix: str) -> None:
    """Print the paper's Tables 1 to 6 and Figure 5 next to what the model gives, with the error of each cell."""
    found = tables()
    for table in found:
        console.print(_sheet(table))
    console.print(_summary(found))
    if out is not None:
        # Matplotlib takes a second to load, and only figures need it.
        from prfaas_cli import paper_figures

        try:
            written = paper_figures.write(out, suffix)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error.strerror}; give a folder that can be written") from error
        for path in written:
            console.print(f"wrote {path}")


def _sheet(table: Table) -> Sheet:
    sheet = Sheet("row", "cell", title=f"{table.name}: {table.title}", title_justify="left")
    for name in ("paper", "ours", "error"):
        sheet.add_column(name, justify="right", no_wrap=True)
    sheet.add_column("origin", no_wrap=True)
    sheet.add_column("note", overflow="fold")
    before = None
    for cell in table.cells:
        sheet.add_row(
            cell.row if cell.row != before else "",
            cell.column,
            _value(cell.published),
            _value(cell.ours),
            _error(cell),
            _origin(cell),
            cell.note if cell.origin is not Origin.NOT_REPRODUCIBLE else f"because {cell.note}",
            style=_STYLES[cell.origin],
        )
        before = cell.row
    return sheet


def _value(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.5g}"


def _error(cell: Cell) -> str:
    if cell.relative_error is None:
        return "" if cell.matches is None else "="
    mark = "" if cell.matches else " *"
    return f"{100 * cell.relative_error:+.2f} %{mark}"


def _origin(cell: Cell) -> str:
    return cell.origin.value


def _summary(found: tuple[Table, ...]) -> str:
    cells = [cell for table in found for cell in table.cells]
    computed = [cell for cell in cells if cell.matches is not None and cell.origin is not Origin.PUBLISHED]
    matching = sum(bool(cell.matches) for cell in computed)
    open_cells = sum(cell.origin is Origin.NOT_REPRODUCIBLE for cell in cells)
    return (
        f"{matching} of {len(computed)} computed cells are within the paper's rounding; a * marks the others, whose note says "
        f"why. {open_cells} cells cannot be computed from what the paper prints."
    )
