"""The splits of a comparison: repeated composition splits, and folds of whole chemical systems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.calibration import assign_splits, group_folds
from mace_bounds.errors import HeadError
from mace_bounds.structures import compositions_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import FitConfig

FIT, CALIBRATION, TEST = "fit", "calibration", "test"
COMPOSITION, LOCO = "composition", "loco"


@dataclass(frozen=True, eq=False)
class Split:
    """One way to fit, calibrate and test.

    Attributes
    ----------
    name : str
        Names its file: ``"composition-0003"`` (the seed) or ``"loco-02-of-10"``.
    kind : {"composition", "loco"}
        What is new in the test rows: compositions, or whole chemical systems.
    config : FitConfig
        Settings with which :func:`mace_bounds.calibration.fit_head` divides ``fit | calibration`` likewise.
    fit, calibration, test : ndarray of bool, shape (n,)
        Disjoint; rows in none of them are not used.
    """

    name: str
    kind: str
    config: FitConfig
    fit: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    test: NDArray[np.bool_]


def make_splits(
    table: pd.DataFrame,
    config: FitConfig,
    *,
    repeats: int,
    loco: int,
    drop_subsystems: bool,
    test_keys: NDArray[np.uint64] | None,
) -> list[Split]:
    """Every split of a comparison that has test rows.

    Parameters
    ----------
    table : DataFrame
        ``formula`` and ``chemical_system`` of the n rows.
    config : FitConfig
        Shares, what never straddles two splits, and the first seed.
    repeats : int
        Composition splits, of the seeds ``config.seed`` onwards: those of :func:`mace_bounds.fit`.
    loco : int
        Folds of whole chemical systems, each the test rows once; with at most as many systems every system is
        a fold of its own.
    drop_subsystems : bool
        Keep rows whose elements are all in one of the fold's systems (Li and Li-O beside Fe-Li-O) out of the
        fit and the calibration of that fold too.
    test_keys : ndarray of uint64, optional
        Compositions to which the test rows are restricted.

    Returns
    -------
    list of Split

    Raises
    ------
    HeadError
        If no split has rows to test on.
    """
    found = [*_by_composition(table, config, repeats), *_by_system(table, config, loco, drop_subsystems)]
    if test_keys is not None:
        wanted = compositions_in(table["formula"].tolist(), test_keys)
        found = [replace(split, test=split.test & wanted) for split in found]
    found = [split for split in found if split.test.any()]
    if not found:
        raise HeadError(
            f"expected rows to test on in {repeats} composition splits and {loco} folds of chemical systems of "
            f"{len(table)} labelled rows, got none; give more labelled structures or other shares."
        )
    return found


def _by_composition(table: pd.DataFrame, config: FitConfig, repeats: int) -> Iterator[Split]:
    groups = table[config.split_by].to_numpy(dtype=str)
    shares = {FIT: config.fit_share, CALIBRATION: config.calibration_share}
    shares[TEST] = 1.0 - sum(shares.values())
    for seed in range(config.seed, config.seed + repeats):
        side = assign_splits(groups, shares, seed)
        parts = (side == FIT, side == CALIBRATION, side == TEST)
        yield Split(f"{COMPOSITION}-{seed:04d}", COMPOSITION, replace(config, seed=seed), *parts)


def _by_system(
    table: pd.DataFrame, config: FitConfig, n_folds: int, drop_subsystems: bool
) -> Iterator[Split]:
    systems = table["chemical_system"].to_numpy(dtype=str)
    names, code = np.unique(systems, return_inverse=True)
    if not n_folds or len(names) < 2:
        return
    folds = code if len(names) <= n_folds else group_folds(systems, n_folds, config.seed)
    total = config.fit_share + config.calibration_share
    shares = {FIT: config.fit_share / total, CALIBRATION: 1.0 - config.fit_share / total}
    side = assign_splits(table[config.split_by].to_numpy(dtype=str), shares, config.seed)
    config = replace(config, fit_share=shares[FIT], calibration_share=shares[CALIBRATION])
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds):
        test = folds == fold
        rest = ~test & ~_inside(names, code, test) if drop_subsystems else ~test
        name = f"{LOCO}-{fold:02d}-of-{n_folds:02d}"
        yield Split(name, LOCO, config, rest & (side == FIT), rest & (side == CALIBRATION), test)


def _inside(names: NDArray[np.str_], code: NDArray[np.int64], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the elements of each row are all in one chemical system of the test rows, shape (n,)."""
    sets = [frozenset(str(name).split("-")) for name in names]
    tested = {sets[i] for i in np.unique(code[test])}
    return np.array([any(one <= other for other in tested) for one in sets], dtype=bool)[code]
