"""What a calibrated head says about rows, and the cells by which it says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.novelty import NoveltyGrades
from mace_bounds.head import PopsPrediction
from mace_bounds.levels import Levels
from mace_bounds.metrics import Membership, fraction_membership, membership, size_bins

GROUP_KINDS = ("chemistry", "element", "size")


@dataclass(frozen=True, eq=False, repr=False)
class Intervals:
    """What a calibrated head says about rows; energies in eV/atom, relative to the model's own energy.

    Attributes
    ----------
    centre : ndarray, shape (n,)
        Middle of the intervals: the expected residual, or 0 where the frozen mean is kept.
    refit : ndarray, shape (n,)
        Expected residual of the refit head, whether it is used or not.
    sigma : ndarray, shape (n,)
        The scale σ(x).
    levels : Levels
        Nominal coverages.
    lower, upper : ndarray, shape (n, n_levels)
        Bounds of the residual. CV+ and signed intervals need not have ``centre`` in their middle.
    pops : PopsPrediction
        Everything the POPS head says.
    extrapolation_grade : ndarray, shape (n,)
        Leverage over the largest leverage among compositions left out in cross-fitting; > 1 is outside.
    unseen : ndarray of bool, shape (n,)
        Whether a row holds an element that no row of the fit had.
    cells : ndarray of str, shape (n,)
        Chemistry class.
    groups : Membership
        Every cell a row may have quantiles of: chemistry class, elements, size bin.
    fold_centre, fold_sigma : ndarray, shape (K, n)
        What the heads of the folds say, from which the bounds are made; one line where nothing was left out by folds.
    novelty : NoveltyGrades or None
        How new the rows are; None where the head was made without it.
    """

    centre: NDArray[np.float64]
    refit: NDArray[np.float64]
    sigma: NDArray[np.float64]
    levels: Levels
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    pops: PopsPrediction
    extrapolation_grade: NDArray[np.float64]
    unseen: NDArray[np.bool_]
    cells: NDArray[np.str_]
    groups: Membership
    fold_centre: NDArray[np.float64]
    fold_sigma: NDArray[np.float64]
    novelty: NoveltyGrades | None = None

    def __repr__(self) -> str:
        return f"Intervals({len(self.sigma)} rows, levels {self.levels})"

    @property
    def half_widths(self) -> NDArray[np.float64]:
        """Half of upper less lower, shape (n, n_levels)."""
        return np.asarray(0.5 * (self.upper - self.lower))

    @property
    def extrapolates(self) -> NDArray[np.bool_]:
        """Whether rows are unlike those of the fit, by leverage or by D-optimality, shape (n,)."""
        by_leverage = self.extrapolation_grade > 1.0
        return by_leverage if self.novelty is None else by_leverage | (self.novelty.novelty > 1.0)

    def at(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of one level, two arrays of shape (n,); HeadError if it was not calibrated."""
        place = self.levels.index(level)
        return self.lower[:, place], self.upper[:, place]


def conformal_groups(
    chemistry: NDArray[np.str_],
    fractions: NDArray[np.float64],
    n_atoms: NDArray[np.float64],
    kinds: Sequence[str] = GROUP_KINDS,
) -> Membership:
    """Cells of each row by chemistry class, element (``Z8``) and size bin: what a new structure tells of itself."""
    parts = {
        "chemistry": membership(chemistry),
        "element": fraction_membership(fractions, [f"Z{z}" for z in range(1, fractions.shape[1] + 1)]),
        "size": membership(size_bins(n_atoms)),
    }
    chosen = [parts[kind] for kind in kinds]
    names = tuple(name for part in chosen for name in part.names)
    nothing = np.zeros((len(n_atoms), 0), dtype=np.bool_)
    return Membership(names, np.concatenate([nothing, *(part.matrix for part in chosen)], axis=1))
