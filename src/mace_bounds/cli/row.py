"""Numbers of one row of bounds as the screen shows them: relative to the energy that the row is read for."""

from __future__ import annotations

from typing import Any

from mace_bounds.flags import REFIT, flag_names

NO_BOUND = "none of use"


def energy_of(row: dict[str, Any]) -> tuple[str, float]:
    """The energy that a row is read for, and its name: of the refitted readout with a head of one chemistry."""
    if is_refitted(row):
        return "E_refit", row["energy_expected_ev"]
    return "E_model", row["energy_model_ev"]


def is_refitted(row: dict[str, Any]) -> bool:
    """Whether it is of a head of one chemistry."""
    return REFIT in flag_names(row["flags"])


def _shown_from(row: dict[str, Any]) -> float:
    """What errors are shown relative to, meV/atom above the model's energy: the energy that a row is read for."""
    return float(row["expected_error_mev_per_atom"]) if is_refitted(row) else 0.0


def envelope_of(row: dict[str, Any]) -> str:
    """Range of all POPS corrections, meV/atom."""
    low, high = (row[f"support_{side}_mev_per_atom"] - _shown_from(row) for side in ("lower", "upper"))
    return f"{low:+.0f} to {high:+.0f}"


def error_of(row: dict[str, Any], decimals: int = 0) -> tuple[str, str]:
    """Label less the energy shown, meV/atom, red outside of the bounds; empty without a label."""
    error = row["error_mev_per_atom"]
    if error is None:
        return "", ""
    return f"{error - _shown_from(row):+.{decimals}f}", "" if row["inside"] else "red"


def has_bound(row: dict[str, Any]) -> bool:
    """Whether its bounds say anything."""
    return "no_useful_bound" not in flag_names(row["flags"])


def interval_of(row: dict[str, Any], unit: str = "") -> str:
    """Lower to upper bound of the error, meV/atom."""
    if not has_bound(row):
        return NO_BOUND
    low, high = (row[f"{side}_mev_per_atom"] - _shown_from(row) for side in ("lower", "upper"))
    return f"{low:+.0f} to {high:+.0f}{unit}"
