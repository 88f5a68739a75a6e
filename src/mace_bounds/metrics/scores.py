"""How good the widths are: calibration, sharpness and ranking, as pure functions on 1-D arrays.

Every function takes residuals (E_DFT - centre) and widths σ in one unit and returns that unit or a pure
number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.errors import HeadError

_Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def _pair(residual: ArrayLike, sigma: ArrayLike) -> _Arrays:
    r, s = np.asarray(residual, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if r.ndim != 1 or r.shape != s.shape or r.size == 0:
        raise HeadError(
            f"residuals and widths have the shapes {r.shape} and {s.shape}, not one length; align them."
        )
    if not (np.all(np.isfinite(r)) and np.all(np.isfinite(s)) and np.all(s > 0)):
        raise HeadError(
            "residuals must be finite, and widths finite and positive; drop the rows that are not."
        )
    return r, s


def nll_gaussian(residual: ArrayLike, sigma: ArrayLike) -> float:
    """Mean negative log-likelihood of N(0, σ²), nats; its unit's logarithm enters, so compare in one unit."""
    r, s = _pair(residual, sigma)
    return float(np.mean(0.5 * np.log(2.0 * np.pi) + np.log(s) + 0.5 * (r / s) ** 2))


def crps_gaussian(residual: ArrayLike, sigma: ArrayLike) -> float:
    """Mean continuous ranked probability score of N(0, σ²), in the residual's unit.

    References
    ----------
    Gneiting & Raftery, J. Am. Stat. Assoc. 102, 359 (2007), equation 21.
    """
    from scipy.special import erf

    r, s = _pair(residual, sigma)
    z = r / s
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return float(np.mean(s * (z * erf(z / np.sqrt(2.0)) + 2.0 * density - 1.0 / np.sqrt(np.pi))))


def crps_from_quantiles(residual: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """Mean CRPS of forecasts known by their quantiles: twice the mean pinball loss.

    Parameters
    ----------
    residual : array_like, shape (n,)
        Observed residuals.
    quantiles : array_like, shape (n, k)
        Predicted quantiles of each row.
    levels : array_like, shape (k,)
        Their probabilities, evenly spaced, e.g. ``(np.arange(k) + 0.5) / k``.

    Returns
    -------
    float
        In the unit of the residual.

    References
    ----------
    Laio & Tamea, Hydrol. Earth Syst. Sci. 11, 1267 (2007): the CRPS is twice the integral of the pinball loss.
    """
    r, q, p = (np.asarray(a, dtype=np.float64) for a in (residual, quantiles, levels))
    if q.shape != (r.size, p.size):
        raise HeadError(f"quantiles have shape {q.shape}, not {(r.size, p.size)}; align rows and levels.")
    over = r[:, None] - q
    return float(2.0 * np.mean(np.maximum(p * over, (p - 1.0) * over)))


def miscalibration_area(residual: ArrayLike, sigma: ArrayLike) -> float:
    """Area between observed and Gaussian interval coverage over all levels: 0 is best, 1/2 worst.

    The integral over the empirical distribution of erf(|r|/√2σ) is exact, so it does not depend on bins.

    References
    ----------
    Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020).
    """
    from scipy.special import erf

    r, s = _pair(residual, sigma)
    u = np.sort(erf(np.abs(r) / (np.sqrt(2.0) * s)))
    edges = np.concatenate([[0.0], u, [1.0]])
    share = np.arange(r.size + 1) / r.size
    below, above = edges[:-1] - share, edges[1:] - share
    # the integral of |p - share| from edge to edge is a difference of p|p|/2
    return float(np.sum(above * np.abs(above) - below * np.abs(below)) / 2.0)


def sharpness(sigma: ArrayLike) -> float:
    """Root mean square of the widths, in their unit."""
    return float(np.sqrt(np.mean(np.asarray(sigma, dtype=np.float64) ** 2)))


def binned_errors(
    residual: ArrayLike, sigma: ArrayLike, n_bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Bin rows by width into equal counts.

    Returns
    -------
    width, error : ndarray, shape (n_bins,)
        Root mean square of σ and of the residual in each bin, narrowest first, in the unit of the input.
    count : ndarray of int64, shape (n_bins,)
        Rows per bin; there are never more bins than rows.
    """
    r, s = _pair(residual, sigma)
    parts = np.array_split(np.argsort(s, kind="stable"), min(n_bins, r.size))
    width = np.array([np.sqrt(np.mean(s[part] ** 2)) for part in parts])
    error = np.array([np.sqrt(np.mean(r[part] ** 2)) for part in parts])
    return width, error, np.array([part.size for part in parts], dtype=np.int64)


def ence(residual: ArrayLike, sigma: ArrayLike, n_bins: int = 10) -> float:
    """Return the expected normalised calibration error: mean |RMS σ - RMSE| / RMS σ over bins of σ.

    References
    ----------
    Levi et al., Sensors 22, 5540 (2022), equation 8.
    """
    width, error, _ = binned_errors(residual, sigma, n_bins)
    return float(np.mean(np.abs(width - error) / width))


def sparsification(residual: ArrayLike, sigma: ArrayLike) -> _Arrays:
    """Mean |residual| of what is left after removing the k widest rows, or (oracle) the k worst ones.

    Returns
    -------
    by_width, by_error : ndarray, shape (n,)
        For k = 0 to n - 1, relative to the mean |residual| of all rows.
    """
    r, s = _pair(residual, sigma)
    error = np.abs(r)
    counts = np.arange(1, r.size + 1)
    total = max(float(error.mean()), np.finfo(np.float64).tiny)
    by_width = (np.cumsum(error[np.argsort(s, kind="stable")]) / counts)[::-1] / total
    by_error = (np.cumsum(np.sort(error)) / counts)[::-1] / total
    return by_width, by_error


def ause(residual: ArrayLike, sigma: ArrayLike) -> float:
    """Area under the sparsification error: 0 when widths rank errors perfectly.

    References
    ----------
    Ilg et al., ECCV 2018, section 5.
    """
    by_width, by_error = sparsification(residual, sigma)
    return float(np.mean(by_width - by_error))


def spearman(residual: ArrayLike, sigma: ArrayLike) -> float:
    """Rank correlation of |residual| and σ; 0 if either is constant."""
    from scipy.stats import rankdata

    r, s = _pair(residual, sigma)
    a, b = rankdata(np.abs(r)), rankdata(s)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed against nominal coverage; arrays of shape (n_levels,), ``n`` test rows."""

    level: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int

    @property
    def area(self) -> float:
        """Area between the curve (closed by (0, 0) and (1, 1)) and the diagonal."""
        x = np.concatenate([[0.0], self.level, [1.0]])
        gap = np.concatenate([[0.0], self.observed - self.level, [0.0]])
        h, a, b = np.diff(x), gap[:-1], gap[1:]
        crossing = a * b < 0
        total = np.where(crossing, np.abs(a) + np.abs(b), 1.0)
        return float(np.sum(h * np.where(crossing, (a**2 + b**2) / total, np.abs(a + b)) / 2.0))


@dataclass(frozen=True)
class WidthMetrics:
    """Summary of how σ describes the residuals; energies in meV/atom, the rest pure numbers."""

    n: int
    mae_mev_per_atom: float
    rmse_mev_per_atom: float
    sharpness_mev_per_atom: float
    crps_mev_per_atom: float
    nll: float
    miscalibration_area: float
    ence: float
    ause: float
    spearman: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for JSON or a table."""
        return asdict(self)


def width_metrics(residual: ArrayLike, sigma: ArrayLike) -> WidthMetrics:
    """Compute every metric of this module that needs only residuals and widths.

    Parameters
    ----------
    residual, sigma : array_like, shape (n,)
        eV/atom. The Gaussian metrics (CRPS, NLL, miscalibration area, ENCE) take σ as a standard deviation.

    Returns
    -------
    WidthMetrics
        In meV/atom; ``nll`` for residuals in eV/atom.
    """
    r, s = _pair(residual, sigma)
    return WidthMetrics(
        n=int(r.size),
        mae_mev_per_atom=float(np.mean(np.abs(r))) * 1e3,
        rmse_mev_per_atom=float(np.sqrt(np.mean(r**2))) * 1e3,
        sharpness_mev_per_atom=sharpness(s) * 1e3,
        crps_mev_per_atom=crps_gaussian(r, s) * 1e3,
        nll=nll_gaussian(r, s),
        miscalibration_area=miscalibration_area(r, s),
        ence=ence(r, s),
        ause=ause(r, s),
        spearman=spearman(r, s),
    )
