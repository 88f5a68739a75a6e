"""Residuals of labelled rows, and what POPS heads say of rows whose compositions they have not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration.splits import group_folds
from mace_bounds.head import PopsFit, PopsPrediction, array_chunks, fit_pops, fit_robust, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mace_bounds.calibration.config import FitConfig
    from mace_bounds.features import FeatureRows


def residual_ev_per_atom(rows: FeatureRows) -> NDArray[np.float64]:
    """(E_DFT - E_model) / N of labelled rows, shape (n,), eV/atom."""
    label, model, n_atoms = (rows.numbers(name) for name in ("energy_ev", "energy_model_ev", "n_atoms"))
    return np.asarray((label - model) / n_atoms)


def row_weights(rows: FeatureRows, config: FitConfig) -> NDArray[np.float64]:
    """Weights of mean 1, shape (n,): equal, or such that every source has the same total."""
    return source_weights(rows.table["source"].to_numpy(str), config)


def source_weights(sources: NDArray[np.str_], config: FitConfig) -> NDArray[np.float64]:
    """:func:`row_weights` of rows of the sources (n,)."""
    if not config.balance:
        return np.ones(len(sources))
    _, code, counts = np.unique(sources, return_inverse=True, return_counts=True)
    return np.asarray(len(code) / (len(counts) * counts[code]))


def cross_fit(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    groups: NDArray[np.str_],
    config: FitConfig,
    also: tuple[NDArray[np.float64], NDArray[np.str_]] | None = None,
) -> PopsPrediction:
    """Predict each row by a POPS head fitted without the fold of its group.

    Parameters
    ----------
    x : ndarray, shape (n, P)
    y : ndarray, shape (n,)
        Residuals, eV/atom.
    weights : ndarray, shape (n,)
    groups : ndarray of str, shape (n,)
    config : FitConfig
    also : tuple of ndarray, optional
        Features (m, P) and groups (m,) of further rows, which no head is fitted to.

    Returns
    -------
    PopsPrediction
        Arrays of shape (n + m,) in the order of the rows; the further rows come last.
    """
    every, of = (
        (x, groups)
        if also is None
        else (np.concatenate(pair) for pair in zip((x, groups), also, strict=True))
    )
    folds = group_folds(of, config.n_folds, config.seed)
    out: dict[str, NDArray[Any]] = {}
    for fold in np.unique(folds):
        held = folds == fold
        made = ~held[: len(y)]
        predicted = predict(fit_one(x[made], y[made], weights[made], config).head, every[held])
        for name, values in predicted.__dict__.items():
            out.setdefault(name, np.zeros(len(every), dtype=values.dtype))[held] = values
    return PopsPrediction(**out)


def rows_of(predicted: PopsPrediction, rows: slice) -> PopsPrediction:
    """The same for some of the rows."""
    return PopsPrediction(**{name: values[rows] for name, values in predicted.__dict__.items()})


def fit_one(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64], config: FitConfig
) -> PopsFit:
    """Fit one POPS head as the settings say."""
    if config.robust:
        return fit_robust(x, y, weights, config.pops())
    return fit_pops(array_chunks(x, y, weights), config.pops())
