"""Predictions in closed form: no sampling, two P×P products per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds.errors import HeadError

from ._chunks import Array
from ._head import PopsHead, PopsPrediction

_CHUNK_ROWS = 8192
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
    Swinburne and Perez (2025), section 4; the box in closed form: the variance of a uniform variable of
    half-width h is h²/3 and the extremum of a linear function over a box is at a corner.
    """
    raw = np.asarray(x)
    if raw.ndim != 2 or raw.shape[1] != len(head.active):
        raise HeadError(
            f"expected features of shape (n, {len(head.active)}), got {raw.shape}; use the feature "
            "specification of the head."
        )
    out: dict[str, Any] = {name: np.empty(len(raw)) for name in PopsPrediction.__dataclass_fields__}
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
    mean = z @ head.coefficients
    u = z @ head.whitening
    leverage = np.einsum("ij,ij->i", u, u)
    along = z @ head.axes
    size = np.abs(along)
    middle, half = 0.5 * (head.lower + head.upper), 0.5 * (head.upper - head.lower)
    ensemble_std = np.sqrt((along * along) @ (head.rms**2))
    shift, reach = along @ middle, size @ half
    yield "mean", mean
    yield "leverage", leverage
    yield "epistemic_std", np.sqrt(leverage / head.alpha)
    yield "ensemble_std", ensemble_std
    if head.config.posterior == "ensemble":
        yield "misspecification_std", ensemble_std
    else:
        yield "misspecification_std", np.sqrt((along * along) @ (half**2 / 3.0) + shift**2)
    yield "support_lower", mean + shift - reach
    yield "support_upper", mean + shift + reach
    middle, half = (
        0.5 * (head.envelope_lower + head.envelope_upper),
        0.5 * (head.envelope_upper - head.envelope_lower),
    )
    shift, reach = along @ middle, size @ half
    yield "envelope_lower", mean + shift - reach
    yield "envelope_upper", mean + shift + reach
    fixed = head.reference[head.constant]
    differs = np.abs(x[:, head.constant] - fixed) > _SAME * np.maximum(1.0, np.abs(fixed))
    yield "unseen_columns", differs.sum(axis=1)


def sample_coefficients(head: PopsHead, n: int, seed: int) -> Array:
    """Draw coefficient vectors from the posterior, for those who need samples.

    Parameters
    ----------
    head : PopsHead
        A fitted head.
    n : int
        Number of draws.
    seed : int
        Seed of :func:`numpy.random.default_rng`; the same seed gives the same draws.

    Returns
    -------
    ndarray, shape (n, m)
        Coefficients of the fitted columns (``head.design.transform(x) @ draws.T`` gives residuals, eV/atom):
        uniform in the clipped box for ``hypercube``, Gaussian with the second moment of the corrections for
        ``ensemble``.
    """
    if n < 0:
        raise HeadError(f"the number of draws must not be negative, got {n}; give a count.")
    rng = np.random.default_rng(seed)
    if head.config.posterior == "ensemble":
        along = rng.standard_normal((n, len(head.rms))) * head.rms
    else:
        along = head.lower + (head.upper - head.lower) * rng.random((n, len(head.lower)))
    return np.asarray(head.coefficients + along @ head.axes.T)
