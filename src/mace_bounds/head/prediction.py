"""Predictions in closed form: no sampling, two P×P products per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array
from mace_bounds.head.pops_head import PopsHead, PopsPrediction
from mace_bounds.head.posteriors import Box

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
    raw = _checked(head, x)
    out: dict[str, Any] = {name: np.full(len(raw), np.nan) for name in PopsPrediction.__dataclass_fields__}
    out["unseen_columns"] = np.zeros(len(raw), dtype=np.int64)
    for rows, chunk in _finite_chunks(raw):
        for name, values in _predict_rows(head, chunk):
            out[name][rows] = values
    return PopsPrediction(**out)


def whitened(head: PopsHead, x: ArrayLike) -> Array:
    """Return whitened coordinates u = Fᵀz of rows, the natural ones for models of their errors.

    Parameters
    ----------
    head : PopsHead
        A fitted head.
    x : array, shape (n, P)
        Raw features, the columns of the fit.

    Returns
    -------
    ndarray, shape (n, m)
        Dimensionless, in order of decreasing variance of the training rows; |u|² is the leverage.

    Raises
    ------
    HeadError
        If the number of columns differs from the fit's, or a value is not finite.
    """
    raw = _checked(head, x)
    out = np.empty((len(raw), len(head.coefficients)))
    for rows, chunk in _finite_chunks(raw):
        out[rows] = head.design.transform(chunk) @ head.whitening
    return out


def _checked(head: PopsHead, x: ArrayLike) -> NDArray[Any]:
    raw = np.asarray(x)
    if raw.ndim != 2 or raw.shape[1] != len(head.active):
        raise HeadError(
            f"expected features of shape (n, {len(head.active)}), got {raw.shape}; use the feature "
            "specification of the head."
        )
    return raw


def _finite_chunks(raw: NDArray[Any]) -> Iterator[tuple[slice, Array]]:
    for start in range(0, len(raw), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        chunk = np.asarray(raw[rows], dtype=np.float64)
        if not np.isfinite(chunk).all():
            row = start + int(np.argmin(np.isfinite(chunk).all(axis=1)))
            raise HeadError(f"row {row} of the features holds NaN or infinity; leave such structures out.")
        yield rows, chunk


def _predict_rows(head: PopsHead, x: Array) -> Iterator[tuple[str, Array]]:
    z = head.design.transform(x)
    mean = z @ head.coefficients
    u = z @ head.whitening
    leverage = np.einsum("ij,ij->i", u, u)
    along = z @ head.axes
    yield "mean", mean
    yield "leverage", leverage
    yield "epistemic_std", np.sqrt(leverage / head.alpha)
    yield "ensemble_std", np.sqrt((along * along) @ (head.rms**2))
    yield "misspecification_std", head.posterior.std(along)
    ranges = {
        "support": head.posterior,
        "envelope": Box(head.envelope_lower, head.envelope_upper),
        "ellipsoid": head.ellipsoid,
    }
    for name, posterior in ranges.items():
        if posterior is not None:
            lower, upper = posterior.support(along)
            yield f"{name}_lower", mean + lower
            yield f"{name}_upper", mean + upper
    if head.ellipsoid is not None:
        yield "ellipsoid_std", head.ellipsoid.std(along)
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
        uniform in the clipped box for ``hypercube``, corrections drawn with replacement for ``ensemble``, uniform
        in the ellipsoid for ``ellipsoid``.
    """
    if n < 0:
        raise HeadError(f"the number of draws must not be negative, got {n}; give a count.")
    deviations = head.posterior.sample(n, np.random.default_rng(seed))
    return np.asarray(head.coefficients + deviations @ head.axes.T)
