"""Why a suspect entry is one: sentences for a wrong label, and sentences for the model's own failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.columns import MEV_PER_EV
from mace_bounds.fitting import SUSPECT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.fitting import Measured

    Array = NDArray[np.float64]

STRONG, WEAK = 2.0, 1.0  # odds are even at 2 where one label in a hundred is wrong, and one in ten at 1
ISOLATED = "isolated_atoms"
_APART, _ALIKE, _TWIN = (
    5.0,
    3.0,
    0.25,
)  # scales apart, scales within which rows agree; distance of near-duplicates
_NOVEL = ("extrapolates", "unseen_element")  # errors are not larger where only a pair of elements is new


class Reasons:
    """Looks up the reasons for single rows.

    Parameters
    ----------
    rows : Measured
        Every labelled row.
    scale : float
        Typical size of a deviation, eV/atom.
    """

    def __init__(self, rows: Measured, scale: float) -> None:
        table = rows.table
        self._scale, self._deviation = scale, rows.deviation
        self._ids, self._formulas = table["id"].to_numpy(), table["formula"].to_numpy()
        self._systems, self._run_types = table["chemical_system"].to_numpy(), table["run_type"].to_numpy()
        self._flags = table["flags"].fillna("").to_numpy()
        self._of_formula = table.groupby("formula").indices
        self._of_system = table.groupby("chemical_system").indices

    def of(
        self,
        at: int,
        *,
        expected: float,
        usual: float,
        evidence: float,
        nearest: int,
        distance: float,
        blind: bool,
    ) -> tuple[str, list[str]]:
        """What a row is likely to be, and the sentences for it.

        Parameters
        ----------
        at : int
            The row.
        expected, usual : float
            Deviation that its neighbours expect, and the usual error there, eV/atom.
        evidence : float
            For a wrong label, in powers of ten.
        nearest, distance : int, float
            The nearest row, and the distance to it in features.
        blind : bool
            Whether the model sees no neighbours.
        """
        flags = str(self._flags[at]).split(";")
        label = ["so far off that it is rather another quantity"] if SUSPECT in flags else []
        label += [*self._lone(at), *self._stray_run_type(at), *self._twin(at, nearest, distance)]
        model = [f"unlike the head's data ({flag.replace('_', ' ')})" for flag in _NOVEL if flag in flags]
        away = abs(self._deviation[at] - expected)
        if blind or ISOLATED in flags:
            model.append("an atom without neighbours, of which the model knows nothing")
        if away < _ALIKE * self._scale and abs(expected) > self._scale:
            model.append("its neighbours in feature space are off in the same way")
        if evidence < WEAK and not label:
            model.append("errors of this size are not rare where so little is known")
        if evidence >= STRONG and not model:
            label.append(
                f"{away / usual:.0f} times the usual error from what its neighbours in feature space say"
            )
        likely = "label" if label and not model else "model" if model and not label else "unclear"
        return likely, label + model or ["nothing else is odd about it"]

    def _lone(self, at: int) -> list[str]:
        """Alone among entries of one composition that agree with each other."""
        same = self._of_formula[self._formulas[at]]
        others = self._deviation[same[same != at]]
        if len(others) < 2:
            return []
        middle = float(np.median(others))
        spread = max(1.4826 * float(np.median(np.abs(others - middle))), self._scale)
        agree = np.mean(np.abs(others - middle) < _ALIKE * spread)
        if abs(self._deviation[at] - middle) < _APART * spread or agree < 0.75:
            return []
        return [f"alone among {len(same)} entries of {self._formulas[at]}, of which most agree"]

    def _stray_run_type(self, at: int) -> list[str]:
        """Another run type than nearly all others of its chemical system."""
        mine, system = self._run_types[at], self._systems[at]
        if not isinstance(mine, str) or not isinstance(system, str):
            return []
        known = [kind for kind in self._run_types[self._of_system[system]] if isinstance(kind, str)]
        if len(known) < 4 or known.count(mine) > 0.25 * len(known):
            return []
        usual = max(sorted(set(known)), key=known.count)
        return [f"run type {mine} where most of {system} is {usual}"]

    def _twin(self, at: int, nearest: int, distance: float) -> list[str]:
        """Nearly the structure of another entry, with another energy."""
        gap = self._deviation[at] - self._deviation[nearest]
        same = self._formulas[at] == self._formulas[nearest]
        if not same or distance > _TWIN or abs(gap) < _APART * self._scale:
            return []
        return [
            f"nearly the structure of {self._ids[nearest]}, {gap * MEV_PER_EV:+.0f} meV/atom from it: "
            "another magnetic or electronic state"
        ]
