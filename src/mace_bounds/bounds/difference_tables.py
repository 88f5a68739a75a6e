"""Tables of differences: polymorphs, volumes, formation energies and reactions among structures that were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.table import provenance
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.decisions import (
    NOT_CALIBRATED,
    SINGLE,
    STRAINED,
    EnergySums,
    check_balanced,
    difference_bounds,
    kinds_of,
    parse_reaction,
    sums,
)
from mace_bounds.errors import StructureError
from mace_bounds.tables import frame, records

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.bounds.decision_rows import DecisionRows

Array = NDArray[np.float64]


MIXED_HUBBARD = "mixed_hubbard"
"""Flag of a difference between energies with and without U."""


@dataclass(frozen=True)
class Difference:
    """A difference of energies with its bounds; names and units as in :data:`mace_bounds.columns.DIFFERENCES`."""

    reaction: str
    kind: str
    model_mev_per_atom: float
    value_mev_per_atom: float
    std_mev_per_atom: float
    lower_mev_per_atom: float
    upper_mev_per_atom: float
    probability_lower: float
    independent_lower_mev_per_atom: float
    independent_upper_mev_per_atom: float
    level: float
    flags: tuple[str, ...]


def one_difference(found: DecisionRows, numbers: Sequence[float]) -> Difference:
    """Of formula units of all rows, in order; StructureError where they do not balance."""
    check_balanced(numbers, found.units, found.table["id"].tolist())
    part = _per_atom(numbers, found.units, list(range(len(numbers))))
    text = " + ".join(f"{c:g} {name}" for c, name in zip(numbers, found.table["id"], strict=True))
    (row,) = records(_difference_table(found, [part], np.zeros(1), [{"reaction": text}]))
    flags = tuple(str(row["flags"]).split(";")) if row["flags"] else ()
    names = [name for name in Difference.__dataclass_fields__ if name != "flags"]
    return Difference(**{name: row[name] for name in names}, flags=flags)


def _per_atom(
    numbers: Sequence[float], units: Sequence[Mapping[str, float]], rows: Sequence[int]
) -> list[tuple[int, float]]:
    """Coefficients of energies per atom of a sum over formula units, per atom of the positive ones."""
    atoms = [number * sum(unit.values()) for number, unit in zip(numbers, units, strict=True)]
    made = sum(n for n in atoms if n > 0)
    return [(row, n / made) for row, n in zip(rows, atoms, strict=True)]


def polymorphs(found: DecisionRows) -> pd.DataFrame:
    """Every pair of structures of one reduced formula, the lower by the model first."""
    names = found.table["formula"].astype(str).tolist()
    return _pair_table(found, names, strained=False)


def volumes(found: DecisionRows) -> pd.DataFrame:
    """Every pair of structures of one formula and number of atoms, taken as one crystal; the lower first."""
    columns = (found.table["formula"], found.table["n_atoms"])
    return _pair_table(
        found, [f"{formula} {n:06d}" for formula, n in zip(*columns, strict=True)], strained=True
    )


def _pair_table(found: DecisionRows, names: Sequence[str], *, strained: bool) -> pd.DataFrame:
    """Pairs of structures of one name."""
    groups: dict[str, list[int]] = {}
    for row in np.argsort(found.model_ev_per_atom, kind="stable"):
        groups.setdefault(names[row], []).append(int(row))
    parts, about = list[list[tuple[int, float]]](), list[dict[str, Any]]()
    ids, formulas = found.table["id"].tolist(), found.table["formula"].tolist()
    for name in sorted(groups):
        rows = groups[name]
        for i, a in enumerate(rows):
            for b in rows[i + 1 :]:
                parts.append([(a, 1.0), (b, -1.0)])
                about.append({"id_a": ids[a], "id_b": ids[b], "formula": formulas[a]})
    _add_failed(found, parts, about)
    return _difference_table(found, parts, np.zeros(len(parts)), about, strained=strained)


def formation(found: DecisionRows, references: Mapping[str, float]) -> pd.DataFrame:
    """Each structure less the elements, whose energies (eV/atom) have no error."""
    parts, fixed, about = list[list[tuple[int, float]]](), list[float](), list[dict[str, Any]]()
    columns = (found.units, found.table["id"], found.table["formula"])
    for row, (unit, name, formula) in enumerate(zip(*columns, strict=True)):
        missing = sorted(set(unit) - set(references))
        total = sum(unit.values())
        parts.append([(row, 1.0)])
        fixed.append(-sum(n * references.get(e, 0.0) for e, n in unit.items()) / total)
        why = (
            f"the references have no {', '.join(missing)}; give its energy (--references)."
            if missing
            else None
        )
        about.append({"id_a": name, "formula": formula, "reason": found.energy_reasons[row] or why})
    _add_failed(found, parts, about)
    return _difference_table(found, parts, np.pad(fixed, (0, len(parts) - len(fixed))), about)


def _add_failed(
    found: DecisionRows, parts: list[list[tuple[int, float]]], about: list[dict[str, Any]]
) -> None:
    """A row for every structure that could not be scored, with its reason."""
    for name, formula, reason in found.failed.itertuples(index=False):
        parts.append([])
        about.append({"id_a": name, "formula": formula, "reason": reason})


def reactions_of(found: DecisionRows, reactions: Sequence[str]) -> pd.DataFrame:
    """Reactions as they are written, balanced."""
    parts, about = list[list[tuple[int, float]]](), list[dict[str, Any]]()
    for text in reactions:
        try:
            reaction = parse_reaction(text, lambda name: _unit_of(found, name))
            rows = [found.row_of(name) for name in reaction.names]
            units = [_unit_of(found, name) for name in reaction.names]
            parts.append(_per_atom(reaction.coefficients, units, rows))
            ids = ";".join(str(found.table["id"].iloc[row]) for row in rows)
            about.append({"reaction": str(reaction), "structures": ids})
        except StructureError as error:
            parts.append([])
            about.append({"reaction": text, "reason": str(error)})
    return _difference_table(found, parts, np.zeros(len(parts)), about)


def _unit_of(found: DecisionRows, name: str) -> Mapping[str, float]:
    """Atoms of a formula as it is written, or of a reduced formula unit of what an id names."""
    from pymatgen.core import Composition

    row = found.row_of(name)
    if name == str(found.table["id"].iloc[row]):
        return found.units[row]
    return {str(e): float(n) for e, n in Composition(name).items()}


def _difference_table(
    found: DecisionRows,
    parts: Sequence[Sequence[tuple[int, float]]],
    fixed: Array,
    about: Sequence[Mapping[str, Any]],
    *,
    strained: bool = False,
) -> pd.DataFrame:
    """Table of sums Σ c_i E_i + fixed, eV/atom; a row with a reason has no numbers.

    ``strained``: every sum is E_a - E_b of one crystal; where a volume is not known they are polymorphs.
    """
    matrix = sums(parts, len(found))
    matrix.data[np.abs(matrix.data) < 1e-14] = 0.0
    matrix.eliminate_zeros()
    kinds, strain = kinds_of(matrix, found.table["formula"].tolist()), np.zeros(len(parts))
    if strained and len(parts):
        pairs = np.array([len(part) == 2 for part in parts])  # the others could not be scored
        first, second = (
            np.array([[part[0][0], part[1][0]] for part in parts if len(part) == 2], int).reshape(-1, 2).T
        )
        strain[pairs] = np.abs(found.log_volume[first] - found.log_volume[second])
        kinds[pairs & np.isfinite(strain)] = STRAINED
    by_model = matrix @ found.model_ev_per_atom + fixed
    whole = EnergySums(matrix, kinds, strain)
    said = difference_bounds(by_model, whole, found.joint, found.model, found.bounds, found.level)
    reasons = np.array([row.get("reason") for row in about], dtype=object)
    good = np.array([reason is None for reason in reasons], dtype=bool)
    given = [flags if isinstance(flags, str) else "" for flags in found.table["flags"]]
    flags = []
    for k, part in enumerate(parts):
        of_parts = {flag for i, _ in part for flag in given[i].split(";") if flag}
        extra = set() if said.calibrated[k] or not good[k] else {NOT_CALIBRATED}
        if good[k] and _mixes_hubbard(found, [i for i, c in part if c], kinds[k] == SINGLE):
            extra.add(MIXED_HUBBARD)
        flags.append(";".join(sorted(of_parts) + sorted(extra)))
    numbers = {
        "model_mev_per_atom": by_model,
        "value_mev_per_atom": said.value,
        "std_mev_per_atom": said.std,
        "lower_mev_per_atom": said.lower,
        "upper_mev_per_atom": said.upper,
        "independent_lower_mev_per_atom": said.independent_lower,
        "independent_upper_mev_per_atom": said.independent_upper,
        "dft_mev_per_atom": matrix @ np.nan_to_num(found.dft_ev_per_atom) + fixed,
    }
    unlabelled = np.isnan(found.dft_ev_per_atom).astype(float)
    labelled = (abs(matrix) @ unlabelled == 0) & good
    numbers["dft_mev_per_atom"] = np.where(labelled, numbers["dft_mev_per_atom"], np.nan)
    inside = (said.lower <= numbers["dft_mev_per_atom"]) & (numbers["dft_mev_per_atom"] <= said.upper)
    texts = {
        name: [row.get(name) for row in about]
        for name in ("id_a", "id_b", "reaction", "structures", "formula")
    }
    return frame(
        {
            **texts,
            "kind": np.where(good, kinds, "").astype(object),
            **{name: np.where(good, values * MEV_PER_EV, np.nan) for name, values in numbers.items()},
            "probability_lower": np.where(good, said.probability_lower, np.nan),
            "inside": [bool(x) if there else None for x, there in zip(inside, labelled, strict=True)],
            "flags": flags,
            "reason": reasons,
            **{name: [value] * len(parts) for name, value in provenance(found.head, found.level).items()},
        }
    )


def _mixes_hubbard(found: DecisionRows, rows: Sequence[int], single: bool) -> bool:
    """Whether a metal has an energy with U in one structure and without in another, or as an element."""
    with_u, without = (frozenset[str]().union(*(found.hubbard[row][k] for row in rows)) for k in (0, 1))
    return bool(with_u if single else with_u & without)
