"""Structures with features, their bounds and their errors together: what decisions are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.energies import ENERGY_REASON
from mace_bounds.calibration import CalibratedHead, head_inputs, square_distances
from mace_bounds.columns import MEV_PER_EV, level_columns, names
from mace_bounds.decisions import (
    GUARDED_LABEL,
    JointErrors,
    JointModel,
    Marginals,
    log_volumes,
    metals_by_hubbard,
)
from mace_bounds.errors import StructureError
from mace_bounds.features import FeatureRows
from mace_bounds.flags import flag_names

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

_SAME = 5e-4  # standard deviations between the features of one crystal that is given twice


@dataclass(frozen=True, eq=False)
class DecisionRows:
    """Structures with features, their bounds and their errors together."""

    rows: FeatureRows  # those that could be scored, without labels that are refused
    table: pd.DataFrame  # their bounds at all levels
    failed: pd.DataFrame  # id, formula and reason of the others
    head: CalibratedHead
    model: JointModel
    level: float

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def joint(self) -> JointErrors:
        """Errors of all of them as one distribution."""
        columns = [self.table[c].to_numpy(dtype=float) for c in names(level_columns(self.head.levels))]
        lower, upper = (np.stack(columns[side::2]) / MEV_PER_EV for side in (0, 1))
        centre = self.table["expected_error_mev_per_atom"].to_numpy(dtype=float) / MEV_PER_EV
        marginals = Marginals.of(self.head, centre, lower, upper)
        design = head_inputs(self.rows, composition=self.head.identity.composition)
        return JointErrors.of(marginals, self.model.likeness, design)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Calibrated bounds of each error at the level, eV/atom."""
        lower, upper = (
            self.table[f"{side}_mev_per_atom"].to_numpy(dtype=float) / MEV_PER_EV
            for side in ("lower", "upper")
        )
        return lower, upper

    @cached_property
    def n_atoms(self) -> Array:
        """Atoms of each cell."""
        return self.table["n_atoms"].to_numpy(dtype=float)

    @cached_property
    def model_ev_per_atom(self) -> Array:
        """Model's energy of each."""
        return self.table["energy_model_ev"].to_numpy(dtype=float) / self.n_atoms

    @cached_property
    def dft_ev_per_atom(self) -> Array:
        """Label of each, NaN where there is none."""
        return self.table["energy_dft_ev"].to_numpy(dtype=float) / self.n_atoms

    @cached_property
    def energy_reasons(self) -> list[str | None]:
        """Why a row is without the energy that is bounded, and is here for its label only; None for all others."""
        if ENERGY_REASON not in self.rows.table:
            return [None] * len(self)
        return [why if isinstance(why, str) else None for why in self.rows.table[ENERGY_REASON]]

    @cached_property
    def log_volume(self) -> Array:
        """Logarithm of the volume per atom of each, Å³; NaN where a store does not know it."""
        return log_volumes(self.rows.table)

    @cached_property
    def units(self) -> list[dict[str, float]]:
        """Atoms of each element in one reduced formula unit."""
        from pymatgen.core import Composition

        known: dict[str, dict[str, float]] = {}
        for formula in self.table["formula"]:
            if formula not in known:
                known[formula] = {str(e): float(n) for e, n in Composition(formula).items()}
        return [known[formula] for formula in self.table["formula"]]

    @cached_property
    def crystals(self) -> NDArray[np.int64]:
        """A number for each row, the same for the same crystal, whatever its cell, or to how many digits it is given.

        Rows of one composition whose features per atom differ by less than 5e-4 standard deviations (root mean square)
        of the head's data. Digits make 1e-4 (four of fractional coordinates), another cell 1e-6; of 11,323 crystals the
        nearest ones with other energies differ by 7e-4.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        kept, features = self.head.kept_rows, self.rows.features / self.n_atoms[:, None]
        spread = features.std(axis=0) if kept is None else kept.spread[: features.shape[1]]
        points = features / np.where(spread > 0, spread, np.inf) / np.sqrt(features.shape[1])
        _, code = np.unique(self.table["formula"].to_numpy(dtype=str), return_inverse=True)
        pairs = [np.empty((0, 2), dtype=np.int64)]
        for group in np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1]):
            near = np.argwhere(square_distances(points[group], points[group]) < _SAME**2)
            pairs.append(group[near[near[:, 0] < near[:, 1]]])
        i, j = np.concatenate(pairs).T
        same = coo_array((np.ones(len(i)), (i, j)), shape=(len(self), len(self)))
        return np.asarray(connected_components(same, directed=False)[1], dtype=np.int64)

    @cached_property
    def hubbard(self) -> list[tuple[frozenset[str], frozenset[str]]]:
        """Metals of each with U, and without (:func:`mace_bounds.decisions.metals_by_hubbard`)."""
        from pymatgen.core import Composition

        run_types = [kind if isinstance(kind, str) else None for kind in self.rows.table["run_type"]]
        return [
            metals_by_hubbard(Composition(unit), kind)
            for unit, kind in zip(self.units, run_types, strict=True)
        ]

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Rows by id, and by formula the one that is lowest by the model."""
        found: dict[str, int] = {}
        for row in np.argsort(-self.model_ev_per_atom, kind="stable"):
            found[canonical_formula(str(self.table["formula"].iloc[row])) or ""] = int(row)
        return found | {str(name): k for k, name in enumerate(self.table["id"])}

    def row_of(self, name: str) -> int:
        """The row that an id or a formula names; StructureError if there is none."""
        place = self.by_name.get(name)
        if place is None and (formula := canonical_formula(name)) is not None:
            place = self.by_name.get(formula)
        if place is None:
            named = (self.failed["id"] == name) | (self.failed["formula"] == (canonical_formula(name) or ""))
            why = self.failed.loc[named, "reason"]
            raise StructureError(
                f"{name} could not be scored: {why.iloc[0]}"
                if len(why)
                else f"no structure of the source has the id or formula {name!r}; add it to the source."
            )
        return place


def canonical_formula(text: str) -> str | None:
    """Reduced formula, whatever the order of elements; None for what is no formula."""
    from pymatgen.core import Composition

    try:
        composition = Composition(text)
    except (ValueError, KeyError):
        return None
    return composition.reduced_formula if composition.num_atoms > 0 else None


def element_references(found: DecisionRows) -> dict[str, float]:
    """Lowest label of every element among the structures, eV/atom; of those that may shape a hull."""
    out: dict[str, float] = {}
    for unit, energy, flags in zip(found.units, found.dft_ev_per_atom, found.table["flags"], strict=True):
        if len(unit) == 1 and np.isfinite(energy) and GUARDED_LABEL.isdisjoint(flag_names(flags)):
            (element,) = unit
            out[element] = min(out.get(element, np.inf), float(energy))
    return out
