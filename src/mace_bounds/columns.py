"""The one schema: every column of every table, with its unit, type and meaning.

Tables, the files that they are written to (:mod:`mace_bounds.tables`), the command line, the documentation and the
tests read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mace_bounds.levels import percent

DType = Literal["text", "float", "integer", "boolean"]
MEV_PER_EV = 1000.0


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
        As it is written everywhere; ends with the unit where there is one.
    dtype : {"text", "float", "integer", "boolean"}
        Every column may be empty, in the way of its type.
    unit : str
        Of its values; empty for pure numbers and text.
    meaning : str
        One sentence for people.
    """

    name: str
    dtype: DType
    unit: str
    meaning: str


def _text(name: str, meaning: str) -> Column:
    return Column(name, "text", "", meaning)


def _number(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "float", unit, meaning)


PROVENANCE = (
    _text("model", "Name of the model whose energies are bounded."),
    _text("features_of", "Name of the model that gives the features: `model`, or another one."),
    _text("model_digest", "First 12 hex digits of the SHA-256 of the tensors of that model."),
    _text("head", "Name of the head."),
    _text("head_digest", "First 12 hex digits of the SHA-256 of the head."),
    _number("level", "", "Nominal coverage of the interval: of structures like the head's data."),
    _text("quantity", "What the bounds are of: the quantity of the head's labels."),
    _text("version", "Version of mace-bounds that wrote the table."),
)
"""Which model and head, at which level, by which version: on every table."""

GRADES = ("gamma", "gamma_local", "gamma_atom", "gamma_atom_local")
"""D-optimality grades: of the structure and of its atoms, against all training rows and against the nearest cluster."""

BOUNDS = (
    _text("id", "Identifier from the source, else its file name; unique in the table."),
    _text("formula", "Reduced formula."),
    Column("n_atoms", "integer", "", "Atoms in the cell as it was given."),
    _number(
        "energy_model_ev",
        "eV",
        "Total energy of the cell by the frozen model (of CHGNet without its MP2020 corrections).",
    ),
    _number(
        "expected_error_mev_per_atom",
        "meV/atom",
        "Best guess of E_DFT - E_model: the centre that the interval is put around.",
    ),
    _number(
        "energy_expected_ev", "eV", "Best guess of the DFT energy: the model's energy and the expected error."
    ),
    _number(
        "std_mev_per_atom", "meV/atom", "Calibrated standard deviation: half the width of the 68 % interval."
    ),
    _number("lower_mev_per_atom", "meV/atom", "Lower bound of E_DFT - E_model at the level."),
    _number("upper_mev_per_atom", "meV/atom", "Upper bound of E_DFT - E_model at the level."),
    _number("energy_lower_ev", "eV", "Lower bound of the DFT energy of the cell at the level."),
    _number("energy_upper_ev", "eV", "Upper bound of the DFT energy of the cell at the level."),
    _number("support_lower_mev_per_atom", "meV/atom", "Lower end of the POPS posterior, before calibration."),
    _number("support_upper_mev_per_atom", "meV/atom", "Upper end of the POPS posterior, before calibration."),
    _number(
        "extrapolation_grade", "", "Leverage over the largest of left-out compositions; above 1 is outside."
    ),
    _number("gamma", "", "D-optimality grade of the structure against all training structures."),
    _number("gamma_local", "", "The same against the nearest cluster of training structures."),
    _number("gamma_atom", "", "Largest grade of its atoms against all training atoms."),
    _number("gamma_atom_local", "", "The same against the nearest cluster of training atoms."),
    _number("novelty", "", "Largest grade over its threshold; above 1 raises `extrapolates`. Not an error."),
    Column("novel_atom", "integer", "", "Site of the atom with the largest local grade, counted from 0."),
    _text("chemistry", "Chemistry class."),
    _text(
        "seen_in", "The first that applies: `fit`, `calibration`, `model_training`, `unseen` or `unknown`."
    ),
    _text("run_type", "`GGA` or `GGA+U`, where the source says so."),
    _text("source", "File, or the source that the structure names."),
    _number("energy_dft_ev", "eV", "Label: total DFT energy of the cell, where the source has one."),
    _text("label_kind", "What the label is, or the key that it came from."),
    _text("label_reason", "Why a label that the source offers was not taken."),
    _number("error_mev_per_atom", "meV/atom", "E_DFT - E_model of the label."),
    Column("inside", "boolean", "", "Whether the label lies inside of the interval."),
    _text("flags", "Names of flags, joined by `;`."),
    _text("reason", "Why the row has no bounds; empty for a row that has."),
    *PROVENANCE,
)
"""The bounds table: one row for every structure, whether it could be scored or not."""

BASIC = (
    "id", "formula", "n_atoms", "energy_model_ev", "energy_lower_ev", "energy_upper_ev", "expected_error_mev_per_atom",
    "std_mev_per_atom", "lower_mev_per_atom", "upper_mev_per_atom", "novelty", "seen_in", "error_mev_per_atom", "flags",
    "reason", "model", "head", "level", "quantity",
)  # fmt: skip
"""Names of the columns of :data:`BOUNDS` that a person reads."""

GEOMETRY = (
    _text("space_group", "International symbol (spglib, 0.01 Å), of labelled structures."),
    _number("density_g_per_cm3", "g/cm³", "Mass density."),
    _number("volume_per_atom_a3", "Å³", "Volume per atom."),
    _number("hull_distance_ev_per_atom", "eV/atom", "Distance from the convex hull, as the source says it."),
)
"""What is known of a structure beside its energy."""

MEASURED = (
    _text("chemical_system", "Elements in alphabetical order, joined by hyphens."),
    *GEOMETRY,
    _number("sigma_mev_per_atom", "meV/atom", "Scale before calibration; `std_mev_per_atom` is after it."),
    _number("covered_above_level", "", "Level above which the row's intervals hold its label."),
)
"""Further columns of an audit's table, which coverage is measured from; then the bounds of every level."""

FINDINGS = (
    _text("rows", "Which rows were measured: `unseen`, `new_to_head`, `test` or `all`."),
    _text("by", "What the group is a group of: `all`, `source`, `chemistry`, `element` and so on."),
    _text("group", "Name of the group."),
    _text("element", "Symbol of the element."),
    Column("n", "integer", "", "Rows in the group."),
    Column("n_compositions", "integer", "", "Different compositions among them."),
    _number("coverage", "", "Measured coverage: the share of labels inside of the interval."),
    _number("coverage_low", "", "Lower end of its 95 % confidence interval, clustered by composition."),
    _number("coverage_high", "", "Upper end of its 95 % confidence interval, clustered by composition."),
    _number("mean_width_mev_per_atom", "meV/atom", "Mean width of the intervals."),
    _number("median_width_mev_per_atom", "meV/atom", "Median width of the intervals."),
    _number("interval_score_mev_per_atom", "meV/atom", "Mean interval score; lower is better."),
    _number("p_value", "", "Two-sided p-value: of the coverage against the level, or of an element's bias."),
    Column("significant", "boolean", "", "Whether it is beyond chance (Benjamini and Hochberg, 5 %)."),
    _number("bias_mev_per_atom", "meV/atom", "Mean of E_DFT - E_model; for an element, what it adds."),
    _number("bias_standard_error_mev_per_atom", "meV/atom", "Its standard error, by the jackknife."),
    _number("standard_error_mev_per_atom", "meV/atom", "Its standard error, by the bootstrap."),
    _number("bias_p_value", "", "Two-sided p-value of the bias against zero."),
    Column("bias_significant", "boolean", "", "Whether the bias is beyond chance, in the same sense."),
    Column("rank", "integer", "", "Place in the list, the most suspicious first."),
    _number("residual_mev_per_atom", "meV/atom", "E_DFT - E_model of the label."),
    _number("excess_mev_per_atom", "meV/atom", "Distance of the label from the nearer bound."),
    _number("excess_half_widths", "", "The same in half-widths of the interval."),
    _number("excess_sigmas", "", "The same in units of the head's scale."),
    _number("neighbours_expect_mev_per_atom", "meV/atom", "Error that the nearest labelled rows suggest."),
    _number("usual_error_mev_per_atom", "meV/atom", "Usual deviation from it among such rows."),
    _number("evidence", "", "log10 of the likelihood ratio of a wrong label against an error of the model."),
    _text("likely", "A hint: `label`, `model` or `unclear`."),
    _text("reasons", "Why, joined by `; `."),
    _text("url", "Page of the entry, where its id names one."),
)
"""Columns of the tables that an audit makes from its bounds table: coverage, curve, atlas, violations, suspects."""

DIFFERENCES = (
    _text("id_a", "First structure: the interval is of E_a - E_b."),
    _text("id_b", "Second structure; empty for formation energies and reactions."),
    _text("reaction", "The balanced reaction; energies are those of the right side less the left one."),
    _text("structures", "Ids of the structures of the reaction, in its order, with `;` between them."),
    _text(
        "kind",
        "`polymorph`, `strained` (one crystal at two volumes), `reaction`, or `single`: one structure against "
        "references without error.",
    ),
    _number("model_mev_per_atom", "meV/atom", "The difference by the model, per atom of one side."),
    _number("value_mev_per_atom", "meV/atom", "Best guess of the DFT difference."),
    _number(
        "probability_lower", "", "Probability of a DFT difference below zero: the first, or right, is lower."
    ),
    _number("independent_lower_mev_per_atom", "meV/atom", "Lower bound if errors had nothing in common."),
    _number("independent_upper_mev_per_atom", "meV/atom", "Upper bound if errors had nothing in common."),
    _number("dft_mev_per_atom", "meV/atom", "The difference of the labels, where all have one."),
)
"""Columns of a table of differences beside those of :data:`BOUNDS`, whose bounds are of the difference there."""

HULLS = (
    _number(
        "energy_ev_per_atom", "eV/atom", "Expected energy with corrections, which lies so far from the hull."
    ),
    _number("std_energy_ev_per_atom", "eV/atom", "Its standard deviation."),
    _number("e_above_hull_ev_per_atom", "eV/atom", "Distance from the hull of the others; below 0: stable."),
    _number("lower_ev_per_atom", "eV/atom", "Lower bound of the distance at the level."),
    _number("upper_ev_per_atom", "eV/atom", "Upper bound of the distance at the level."),
    _number("std_ev_per_atom", "eV/atom", "Standard deviation of the distance."),
    _number("p_stable", "", "Probability that it is on the hull."),
    *(_number(f"p_within_{n}mev", "", f"The same to be within {n} meV/atom of it.") for n in (25, 50, 100)),
    _text("decomposition", "Mixtures of phases below or beside it by atoms, with their share of the draws."),
    _text("vertex", "Phase whose error matters most for the distance; empty where all phases are fixed."),
)
"""Columns of a table of distances from the hull beside those of :data:`BOUNDS`."""

PROPERTIES = (
    *BOUNDS[:2],
    _text("property", "What the value is, such as `V0`, `C11` or `E(fcc) - E(bcc)`."),
    _text("unit", "Of value, bounds and standard deviation."),
    _number("value", "", "By the mean readout weights, in the unit of the row."),
    _number("lower", "", "Lower bound at the level; empty where there is none."),
    _number("upper", "", "Upper bound at the level; empty where there is none."),
    _number("std", "", "Standard deviation: over draws, or half the width of the calibrated 68 % interval."),
    _text("bounds", "What the interval is: calibrated, and on what, or `POPS range, not calibrated`."),
    _text("method", "`curves`, `implicit` or `resample`."),
    Column("n_draws", "integer", "", "Draws of the readout weights."),
    _number("failed_share", "", "Share of draws that do not have the property: no minimum, unstable."),
    _text("assumed", "What was taken for granted, joined by `; `."),
    _number("envelope_lower", "", "Least value over the box of POPS corrections, where linear in them."),
    _number("envelope_upper", "", "Largest value over that box."),
    _text("flags", "Names of flags, joined by `;`."),
    _text("reason", "Why there is no value; empty where there is one."),
)
"""Columns of a table of propagated properties, before :data:`PROVENANCE`."""

KNOWN = {c.name: c for c in (*BOUNDS, *MEASURED, *FINDINGS, *DIFFERENCES, *HULLS, *PROPERTIES)}
"""Every column by its name."""


def bound_columns(level: float) -> tuple[str, str]:
    """Names of the columns with the bounds of one level: ``lower_95_mev_per_atom`` and its partner."""
    return f"lower_{percent(level)}_mev_per_atom", f"upper_{percent(level)}_mev_per_atom"


def level_columns(levels: Iterable[float]) -> tuple[Column, ...]:
    """Columns of the bounds of several levels, in their order."""
    return tuple(
        _number(name, "meV/atom", f"{which} bound of E_DFT - E_model at {percent(level)} %.")
        for level in levels
        for which, name in zip(("Lower", "Upper"), bound_columns(level), strict=True)
    )


def names(columns: Iterable[Column]) -> list[str]:
    """Names of columns, in order."""
    return [column.name for column in columns]
