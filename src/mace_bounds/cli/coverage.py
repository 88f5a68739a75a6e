"""Coverage on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_bounds.cli import console as _console

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.table import Table

MOST = 16


def coverage_view(rows: Sequence[dict[str, float]], title: str) -> Table:
    """Overall coverage at each level, with confidence interval, count and widths."""
    columns = ("level", "covered", "95 % confidence", "n", "median width (meV/atom)")
    view = _console.plain_table(*columns, right=columns, title=title)
    for row in rows:
        view.add_row(
            f"{100 * row['level']:g} %",
            _share(row),
            f"{100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f} %",
            f"{row['n']:,}",
            f"{row['median_width_mev_per_atom']:.0f}",
        )
    return view


def groups_view(coverage: pd.DataFrame, level: float, by: Sequence[str]) -> Table | None:
    """Coverage of groups at one level, lowest first; None where there are no groups."""
    from mace_bounds.columns import records

    picked = coverage[((coverage["level"] - level).abs() < 1e-9) & coverage["by"].isin(list(by))]
    if len(picked) == 0:
        return None
    columns = ("group", f"covered at {100 * level:g} %", "95 % confidence", "n")
    view = _console.plain_table(*columns, right=columns[1:])
    for row in records(picked.sort_values(["coverage", "n"], kind="stable").head(MOST)):
        view.add_row(
            f"{row['by']}: {row['group']}".replace("_", " "),
            _share(row),
            f"{100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f} %",
            f"{row['n']:,}",
        )
    return view


def _share(row: dict[str, float]) -> str:
    text = f"{100 * row['coverage']:.1f} %"
    return f"[red]{text}[/red]" if row["coverage_high"] < row["level"] else f"[bold]{text}[/bold]"
