"""Bounds on the screen: a card for one structure, a table for several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds.cli import console as _console

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.calibration import CalibratedHead

_EXPLAINED = {
    "extrapolates": "far from the structures that the head was made from: the stated coverage was not measured there",
    "unseen_pair": "two of its elements never met in a structure that the head was fitted on",
    "unseen_element": "holds an element that the head has not been fitted on",
    "in_training": "its composition was in the model's own training, where errors are smaller",
    "suspect_label": "its label is so far from the model that it is likely another quantity",
    "label_refused": "its label is not comparable with the model's energy and was not used",
}


def print_bounds(table: pd.DataFrame, head: CalibratedHead, head_name: str, level: float) -> None:
    """Print bounds for people; structures that could not be scored are left to standard error."""
    from mace_bounds.columns import records

    console = _console.out()
    good = table[table["reason"].isna()]
    if len(good) == 1 and len(table) == 1:
        _card(records(good)[0], level)
    elif len(good):
        _table(good, level)
    if len(good) == 0:
        return
    identity = head.identity
    console.print(
        f"[dim]Model {identity.model} ({identity.model_digest[:12]}), head {head_name}. The bounds hold E_DFT, as the "
        f"head's labels define it,\nfor {100 * level:g} % of structures like those it was calibrated on. "
        f"{_measured(head, level)}[/dim]",
        soft_wrap=True,
    )
    for flag in sorted({flag for flags in good["flags"] for flag in str(flags).split(";")} & set(_EXPLAINED)):
        console.print(f"[yellow]{flag}[/yellow][dim]: {_EXPLAINED[flag]}[/dim]", soft_wrap=True)


def _measured(head: CalibratedHead, level: float) -> str:
    for row in head.provenance.get("coverage", []):
        if abs(float(row["level"]) - level) < 1e-9:
            known = head.provenance.get("test_rows_in_training", 0)
            what = (
                f"that it has not used, {known:,} of compositions that the model knows"
                if known
                else "unseen ones"
            )
            return f"Measured: {100 * row['coverage']:.1f} % of {row['n']:,} {what}."
    return ""


def _card(row: dict[str, Any], level: float) -> None:
    from rich.table import Table

    console, n_atoms = _console.out(), int(row["n_atoms"])
    console.print(f"[bold]{row['formula']}[/bold]  [dim]{row['id']}, {n_atoms} atoms[/dim]")
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    grid.add_column(style="dim")
    grid.add_row(
        "E_MACE", f"{row['energy_model_ev']:.4f} eV", f"{row['energy_model_ev'] / n_atoms:.4f} eV/atom"
    )
    low, high = row["energy_lower_ev"], row["energy_upper_ev"]
    grid.add_row(
        f"E_DFT, {100 * level:g} % bounds",
        f"[bold]{low:.4f} to {high:.4f} eV[/bold]",
        f"{low / n_atoms:.4f} to {high / n_atoms:.4f} eV/atom",
    )
    grid.add_row("E_DFT − E_MACE", f"[bold]{_signed(row)} meV/atom[/bold]", "lower to upper bound")
    grid.add_row(
        "expected error",
        f"{row['expected_error_mev_per_atom']:+.1f} meV/atom",
        "best guess, in the middle of the bounds",
    )
    if row["energy_dft_ev"] == row["energy_dft_ev"] and row["energy_dft_ev"] is not None:
        where = "inside" if row["inside"] else "[red]outside[/red]"
        grid.add_row(
            "label", f"{row['energy_dft_ev']:.4f} eV", f"{row['error_mev_per_atom']:+.1f} meV/atom, {where}"
        )
    grid.add_row("flags", _flags(row) or "none", "")
    console.print(grid)


def _table(table: pd.DataFrame, level: float) -> None:
    from mace_bounds.columns import records

    labelled = bool(table["energy_dft_ev"].notna().any())
    columns = [
        "id",
        "formula",
        "atoms",
        "E_MACE (eV)",
        f"E_DFT, {100 * level:g} % (eV)",
        "error bounds (meV/atom)",
    ]
    columns += ["error"] * labelled + ["flags"]
    view = _console.plain_table(*columns, right=[*columns[2:6], "error"])
    for column in view.columns[1:-1]:
        column.no_wrap = True
    for row in records(table):
        cells = [
            str(row["id"]),
            str(row["formula"]),
            f"{int(row['n_atoms'])}",
            f"{row['energy_model_ev']:.3f}",
            f"{row['energy_lower_ev']:.3f} to {row['energy_upper_ev']:.3f}",
            _signed(row),
        ]
        if labelled:
            cells.append(_error(row))
        view.add_row(*cells, _flags(row))
    _console.out().print(view)


def _error(row: dict[str, Any]) -> str:
    error = row["error_mev_per_atom"]
    if error is None or error != error:
        return ""
    return f"{error:+.0f}" if row["inside"] else f"[red]{error:+.0f}[/red]"


def _signed(row: dict[str, Any]) -> str:
    return f"{row['lower_mev_per_atom']:+.0f} to {row['upper_mev_per_atom']:+.0f}"


def _flags(row: dict[str, Any]) -> str:
    return f"[yellow]{str(row['flags']).replace(';', ', ')}[/yellow]" if row["flags"] else ""
