"""Predictions in closed form: no sampling, two P×P products per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.pops_head import PopsHead, PopsPrediction

_CHUNK_ROWS = 512  # intermediate results stay in the cache of a core
_SAME = (
    1e-9  # a column further than this (relative to its training value, at least 1) from constant is unseen
)


def predict(head: PopsHead, x: ArrayLike) -> PopsPrediction:
    """Predict mean, standard deviations and ranges of the residual.

    Parameters
    ----------
    head : PopsHead
        A fitted head.
    x : array, shape (n, P)
        Raw features, the columns of the fit.

    Returns
    -------
    PopsPrediction
        Arrays of shape (n,), eV/atom.

    Raises
    ------
    HeadError
        If the number of columns differs from the fit's, or a value is not finite.

    References
    ----------
    Swinburne and Perez (2025), section 4; closed forms in :mod:`mace_bounds.head.posteriors`.
    """
    raw = np.asarray(x)
    if raw.ndim != 2 or raw.shape[1] != len(head.design.active):
        raise HeadError(
            f"the head takes features of shape (n, {len(head.design.active)}), and these have {raw.shape}; extract the "
            "kind of features that the head was fitted to."
        )
    out: dict[str, Any] = {name: np.full(len(raw), np.nan) for name in PopsPrediction.__dataclass_fields__}
    out["unseen_columns"] = np.zeros(len(raw), dtype=np.int64)
    for start in range(0, len(raw), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        chunk = np.asarray(raw[rows], dtype=np.float64)
        if not np.isfinite(chunk).all():
            row = start + int(np.argmin(np.isfinite(chunk).all(axis=1)))
            raise HeadError(f"row {row} of the features holds NaN or infinity; leave such structures out.")
        for name, values in _predict_rows(head, chunk):
            out[name][rows] = values
    return PopsPrediction(**out)


def _predict_rows(head: PopsHead, x: Array) -> Iterator[tuple[str, Array]]:
    z = head.design.transform(x)
    mean = z @ head.ridge.coefficients
    u = z @ head.ridge.whitening
    leverage = np.einsum("ij,ij->i", u, u)
    along = z @ head.axes
    yield "mean", mean
    yield "leverage", leverage
    yield "epistemic_std", np.sqrt(leverage / head.ridge.alpha)
    yield "misspecification_std", head.posterior.std(along)
    lower, upper = head.posterior.support(along)
    yield "support_lower", mean + lower
    yield "support_upper", mean + upper
    if "ellipsoid" in head.posteriors:
        yield "ellipsoid_std", head.posteriors["ellipsoid"].std(along)
    fixed = head.design.reference[head.design.constant]
    differs = np.abs(x[:, head.design.constant] - fixed) > _SAME * np.maximum(1.0, np.abs(fixed))
    yield "unseen_columns", differs.sum(axis=1)
