"""What was measured of a head, as tables of text: its card, the screen and reports show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.fitting.promise import source_study
from mace_bounds.levels import TOLERANCE, percent
from mace_bounds.screen import markdown_table

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


@dataclass(frozen=True)
class TextTable:
    """Headers, and for each of them the text of every row; numbers are in all columns but ``texts``."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: tuple[str, ...] = ()

    @property
    def numbers(self) -> list[str]:
        """Headers of the columns that hold numbers."""
        return [name for name in self.columns if name not in self.texts]

    def markdown(self) -> str:
        """The table in Markdown; what is in its cells is never read as markup."""
        return markdown_table(self.columns, self.rows)


def share_text(value: float | None) -> str:
    """Write a share as per cent; nothing for none."""
    return "" if value is None else f"{100 * value:.1f} %"


def coverage_by_level(rows: Iterable[Row]) -> TextTable:
    """Coverage at each level with its confidence interval, from :func:`mace_bounds.metrics.coverage_table`."""
    columns = ("level", "covered", "95 % confidence", "n", "median width (meV/atom)")
    lines = [
        (
            f"{percent(row['level'])} %",
            *_covered(row),
            f"{row['n']:,}",
            f"{row['median_width_mev_per_atom']:.0f}",
        )
        for row in rows
    ]
    return TextTable(columns, lines)


def coverage_over_splits(rows: Iterable[Row]) -> TextTable:
    """Mean and spread of the coverage over several splits, from a head's provenance."""
    columns = ("level", "mean", "± over splits", "lowest", "highest")
    names = ("mean", "std", "minimum", "maximum")
    lines = [(f"{percent(row['level'])} %", *(f"{100 * row[name]:.1f} %" for name in names)) for row in rows]
    return TextTable(columns, lines)


def at_level(coverage: pd.DataFrame, level: float) -> pd.DataFrame:
    """Rows of a table of coverage that are of a level."""
    return coverage[(coverage["level"] - level).abs() < TOLERANCE]


def coverage_by_group(rows: Iterable[Row], level: float, titles: dict[str, str] | None = None) -> TextTable:
    """Coverage of groups at one level, in their order; ``titles`` by what they are groups of."""
    columns = ("group", f"covered at {percent(level)} %", "95 % confidence", "n")
    lines = [
        (
            f"{(titles or {}).get(row['by'], row['by'].replace('_', ' '))}: {row['group']}",
            *_covered(row),
            f"{row['n']:,}",
        )
        for row in rows
    ]
    return TextTable(columns, lines, texts=("group",))


def _covered(row: Row) -> tuple[str, str]:
    return (
        f"{100 * row['coverage']:.1f} %",
        f"{100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f} %",
    )


def sources_left_out(about: Row) -> TextTable:
    """Coverage and scores on sources left out, from a head's provenance; no rows where none was."""
    rows: Sequence[Row] = list(source_study(about).get("left_out", ()))
    columns = (
        "source left out",
        "n",
        "covered",
        "median width (meV/atom)",
        "interval score, of one constant width",
    )
    lines: list[tuple[str, ...]] = []
    for row in rows:
        covered = ", ".join(
            f"{100 * share:.1f} % at {percent(float(x))} %" for x, share in row["coverage"].items()
        )
        ratio = row["interval_score_mev_per_atom"] / max(row["constant_score_mev_per_atom"], 1e-9)
        width = f"{row['median_width_mev_per_atom']:.0f}"
        lines.append((str(row["source"]), f"{row['n']:,}", covered, width, f"{ratio:.2f}"))
    if rows:
        mean, flat = (
            float(np.mean([row[f"{name}_score_mev_per_atom"] for row in rows]))
            for name in ("interval", "constant")
        )
        n = sum(int(row["n"]) for row in rows)
        lines.append(("mean over sources", f"{n:,}", "", "", f"{mean / max(flat, 1e-9):.2f}"))
    return TextTable(columns, lines, texts=(columns[0], columns[2]))


def flagged_and_others(rows: Iterable[Row]) -> TextTable:
    """Coverage of rows flagged as novel and of the others, from :func:`flagged_coverage`."""
    columns = ("source", "flagged", "covered of these", "others", "covered of these")
    lines = [
        (
            str(row["source"]),
            *(
                text
                for part in ("flagged", "others")
                for text in (f"{row[f'n_{part}']:,}", share_text(row[f"{part}_coverage"]))
            ),
        )
        for row in rows
    ]
    return TextTable(columns, lines, texts=("source",))
