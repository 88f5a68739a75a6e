"""The splits of a comparison, and the groups of test structures in which it reports coverage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import FitConfig, assign_splits, group_folds
from mace_bounds.errors import HeadError
from mace_bounds.metrics import Membership, chemistry_classes, element_membership, membership, size_bins
from mace_bounds.structures import compositions_in

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.benchmark.config import CompareConfig

FIT, CALIBRATION, TEST = "fit", "calibration", "test"
COMPOSITION, SYSTEM = "composition", "system"


@dataclass(frozen=True, eq=False)
class Split:
    """One way to fit, calibrate and test."""

    name: str  # names its file: ``"composition-0003"`` (the seed) or ``"system-02-of-10"``
    # {"composition", "system"}: what is new in the test rows: compositions, or whole chemical systems
    kind: str
    # settings with which :func:`mace_bounds.calibration.fit_head` divides ``fit | calibration`` likewise
    config: FitConfig
    # fit, calibration, test, shape (n,): disjoint; rows in none of them are not used
    fit: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    test: NDArray[np.bool_]


def make_splits(
    table: pd.DataFrame, config: CompareConfig, test_keys: NDArray[np.uint64] | None = None
) -> list[Split]:
    """Every split of a comparison that has test rows.

    ``table``: ``formula`` and ``chemical_system`` of the n rows; ``config``: numbers of splits and folds;
    shares, groups and the first seed are those of its ``fit``; ``test_keys``: compositions to which the test
    rows are restricted.
    Returns composition splits of the seeds ``config.fit.seed`` onwards, which are those of
    :func:`mace_bounds.fit`; then folds of chemical systems. With at most as many systems as folds every
    system is a fold of its own.
    """
    splits = [*_by_composition(table, config.fit, config.n_splits), *_by_system(table, config)]
    if test_keys is not None:
        wanted = compositions_in(table["formula"].tolist(), test_keys)
        splits = [replace(split, test=split.test & wanted) for split in splits]
    splits = [split for split in splits if split.test.any()]
    if not splits:
        raise HeadError(
            f"{len(table)} labelled rows leave none to test on in {config.n_splits} composition splits and "
            f"{config.system_folds} folds of chemical systems; give more labelled structures or other shares."
        )
    return splits


def _by_composition(table: pd.DataFrame, config: FitConfig, n_splits: int) -> Iterator[Split]:
    groups = table[config.split_by].to_numpy(dtype=str)
    shares = {FIT: config.fit_share, CALIBRATION: config.calibration_share}
    shares[TEST] = 1.0 - sum(shares.values())
    for seed in range(config.seed, config.seed + n_splits):
        side = assign_splits(groups, shares, seed)
        parts = (side == FIT, side == CALIBRATION, side == TEST)
        yield Split(f"{COMPOSITION}-{seed:04d}", COMPOSITION, replace(config, seed=seed), *parts)


def _by_system(table: pd.DataFrame, comparison: CompareConfig) -> Iterator[Split]:
    config, n_folds = comparison.fit, comparison.system_folds
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
        rest = ~test & ~_inside(names, code, test) if comparison.drop_subsystems else ~test
        name = f"{SYSTEM}-{fold:02d}-of-{n_folds:02d}"
        yield Split(name, SYSTEM, config, rest & (side == FIT), rest & (side == CALIBRATION), test)


def _inside(names: NDArray[np.str_], code: NDArray[np.int64], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the elements of each row are all in one chemical system of the test rows, shape (n,)."""
    sets = [frozenset(str(name).split("-")) for name in names]
    tested = {sets[i] for i in np.unique(code[test])}
    return np.array([any(elements <= system for system in tested) for elements in sets], dtype=bool)[code]


def row_groups(table: pd.DataFrame, flags: Mapping[str, NDArray[np.bool_]]) -> dict[str, Membership]:
    """The groups in which test rows are reported, from the table's columns and the product's flags."""
    raised = np.column_stack([*flags.values(), np.any(list(flags.values()), axis=0)])
    return {
        "all": membership(["all"] * len(table)),
        **_plain_groups(table),
        "flag": Membership((*flags, "any"), raised),
    }


def _plain_groups(table: pd.DataFrame) -> dict[str, Membership]:
    """The groups that do not depend on a head."""
    return {
        "source": membership(table["source"].to_numpy(dtype=object)),
        "size": membership(size_bins(table["n_atoms"].to_numpy(dtype=int))),
        "chemistry": membership(chemistry_classes(table["elements"].tolist())),
        "element": element_membership(table["chemical_system"].tolist()),
    }


def distinct_structures(splits: Sequence[Split], table: pd.DataFrame) -> dict[tuple[str, str, str], int]:
    """Different test structures of each group over the splits of a kind."""
    groups = {"all": membership(["all"] * len(table)), **_plain_groups(table)}
    counts = {}
    for kind in {split.kind for split in splits}:
        tested = np.any([split.test for split in splits if split.kind == kind], axis=0)
        for by, members in groups.items():
            for name, n in zip(members.names, members.matrix[tested].sum(axis=0), strict=True):
                counts[kind, by, name] = int(n)
    return counts
