"""Linear regressions with a mean of their own: a bootstrap committee, Bayesian ridge, POPS as its authors have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.benchmark.baselines.interface import (
    SMALLEST_EV_PER_ATOM,
    BaselineRows,
    FittedBaseline,
    Widths,
    array_bytes,
    floor_of,
    nll_scale,
    training_rows,
)
from mace_bounds.head import Design, PopsConfig, array_chunks, fit_linear

N_MEMBERS = 32
"""Heads in a committee; 16 and 64 made intervals of the same quality on real rows."""
_CHUNK_ROWS = 8192
_FEWEST_VOTES = 4  # (M - 3)/(M - 1) needs more than three members that have not seen a row
_SMALLEST_SPREAD = 1e-6  # of the mean spread: members that agree by chance would make α infinite


@dataclass(frozen=True)
class Committee:
    """Mean and α × spread of ridge heads, each fitted to a bootstrap of the compositions.

    L. Breiman, Mach. Learn. 24, 123 (1996) for the committee; whole compositions are drawn with replacement,
    as near-duplicates must not be independent. Members share the λ/α that the evidence of all rows gives and
    minimise Σ c w (y - z·θ)² + (λ/α)|θ|², c the number of times a composition was drawn. Their mean is
    the centre.

    α scales the spread by maximum likelihood (F. Musil et al., J. Chem. Theory Comput. 15, 906 (2019)) on
    out-of-bag rows, i.e. from the members that have not seen the row's composition, with the correction for few
    members M: α² = mean[(M - 3)/(M - 1) e²/σ² - 1/M] (G. Imbalzano et al., J. Chem. Phys. 154, 074102 (2021)).
    Weights enter the heads and the likelihood. Unit eV/atom; α is a number.
    """

    name: str = "committee"
    share: float | None = None  # of the compositions, drawn without replacement in place of a bootstrap

    def fit(self, rows: BaselineRows, seed: int) -> FittedCommittee:
        """Draw compositions, fit the members, scale their spread on out-of-bag rows."""
        kept = training_rows(rows)
        if self.share is None:
            counts = composition_bootstrap(kept.groups, N_MEMBERS, seed)
        else:
            counts = composition_subsets(kept.groups, N_MEMBERS, self.share, seed)
        design, coefficients = _members(kept, counts)
        members = design.transform(kept.x) @ coefficients
        alpha, floor = _scale(members, counts == 0, kept)
        return FittedCommittee(design, coefficients, alpha, floor)


def composition_bootstrap(groups: NDArray[np.str_], n_members: int, seed: int) -> NDArray[np.float64]:
    """How often each row is drawn for each member, shape (n, n_members): with its whole composition."""
    names, code = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1.0 / len(names)), size=n_members
    )
    return np.asarray(drawn.T[code], dtype=np.float64)


def composition_subsets(
    groups: NDArray[np.str_], n_members: int, share: float, seed: int
) -> NDArray[np.float64]:
    """Whether each row is of the share of the compositions that each member sees, shape (n, n_members): 0 or 1."""
    names, code = np.unique(groups, return_inverse=True)
    rng, most = np.random.default_rng(seed), max(int(share * len(names)), 1)
    drawn = np.array([rng.permutation(len(names)) < most for _ in range(n_members)])
    return np.asarray(drawn.T[code], dtype=np.float64)


def _members(rows: BaselineRows, counts: NDArray[np.float64]) -> tuple[Design, NDArray[np.float64]]:
    """Coefficients (m, B), eV/atom, from normal equations in whitened coordinates, where they are safe."""
    linear = fit_linear(array_chunks(rows.x, rows.y, rows.weights), PopsConfig())
    whitening = linear.evidence.basis * linear.evidence.spread
    m, n_members = len(whitening), counts.shape[1]
    prior = (linear.evidence.lambda_ / linear.evidence.alpha) * (whitening.T @ whitening)
    normal, right = np.zeros((n_members, m, m)), np.zeros((n_members, m))
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        u = linear.design.transform(rows.x[part]) @ whitening
        for b in range(n_members):
            weighted = u * (rows.weights[part] * counts[part, b])[:, None]
            normal[b] += weighted.T @ u
            right[b] += weighted.T @ rows.y[part]
    solved = np.linalg.solve(normal + prior, right[:, :, None])[:, :, 0]
    return linear.design, np.asarray(whitening @ solved.T)


def _scale(
    members: NDArray[np.float64], left_out: NDArray[np.bool_], rows: BaselineRows
) -> tuple[float, float]:
    """α and the smallest width, from the members that have not seen each row."""
    votes = left_out.sum(axis=1)
    enough = votes >= _FEWEST_VOTES
    votes, values, out, y = votes[enough], members[enough], left_out[enough], rows.y[enough]
    mean = np.sum(values * out, axis=1) / votes
    variance = np.sum((values - mean[:, None]) ** 2 * out, axis=1) / (votes - 1)
    smallest = max(_SMALLEST_SPREAD * float(np.sqrt(variance.mean())), SMALLEST_EV_PER_ATOM)
    spread = np.maximum(np.sqrt(variance), smallest)
    few = np.sqrt((votes - 3.0) / (votes - 1.0))
    weights = rows.weights[enough]
    _, alpha = nll_scale(few * (y - mean), spread[:, None], weights)
    alpha = float(np.sqrt(max(alpha**2 - np.average(1.0 / votes, weights=weights), 0.0)))
    return alpha, floor_of(alpha * spread, weights)


@dataclass(frozen=True, eq=False)
class FittedCommittee(FittedBaseline):
    """Coefficients (m, members) in eV/atom, the factor α, and the smallest width (eV/atom)."""

    design: Design
    coefficients: NDArray[np.float64]
    alpha: float
    floor: float

    def predict(self, rows: BaselineRows) -> Widths:
        """Mean of the members, and α times their standard deviation."""
        members = self.design.transform(rows.x) @ self.coefficients
        return Widths(members.mean(axis=1), np.maximum(self.alpha * members.std(axis=1, ddof=1), self.floor))


@dataclass(frozen=True)
class BayesianRidge:
    """Posterior predictive of a linear model with Gaussian noise; its own mean, nothing calibrated.

    σ² = zᵀ Σ z, plus 1/α with ``noise``: α Σ = (ZᵀWZ + (λ/α) I)⁻¹, z the standardised columns with a constant
    that shares the prior, α and λ by evidence (D. J. C. MacKay, Neural Comput. 4, 415 (1992), equations
    2.19–2.21; C. M. Bishop, *Pattern Recognition and Machine Learning* (2006), equations 3.58–3.59; the
    fixed point of scikit-learn's ``BayesianRidge``). Without noise the width is only epistemic and falls as
    1/√n: what is left out is what POPS is about. Weights multiply squared errors; the noise is that of a row of
    weight 1. The fit sees y, not the centre.
    """

    name: str
    noise: bool

    def fit(self, rows: BaselineRows, seed: int) -> FittedRidge:  # noqa: ARG002 - nothing is drawn
        """Fit mean, noise and prior precision to the labels."""
        kept = training_rows(rows)
        linear = fit_linear(array_chunks(kept.x, kept.y, kept.weights), PopsConfig())
        evidence, unit = linear.evidence, linear.y_scale
        return FittedRidge(
            design=linear.design,
            coefficients=evidence.coefficients * unit,
            whitening=evidence.basis * evidence.spread,
            noise_variance=unit**2 / evidence.alpha,
            adds_noise=self.noise,
        )


@dataclass(frozen=True, eq=False)
class FittedRidge(FittedBaseline):
    """Coefficients (m,) in eV/atom, whitening F (m, m) with α Σ = F Fᵀ, and 1/α in (eV/atom)²."""

    design: Design
    coefficients: NDArray[np.float64]
    whitening: NDArray[np.float64]
    noise_variance: float
    adds_noise: bool

    def predict(self, rows: BaselineRows) -> Widths:
        """Mean and standard deviation of the posterior predictive."""
        z = self.design.transform(rows.x)
        u = z @ self.whitening
        variance = self.noise_variance * (np.einsum("ij,ij->i", u, u) + float(self.adds_noise))
        return Widths(z @ self.coefficients, np.maximum(np.sqrt(variance), SMALLEST_EV_PER_ATOM))


@dataclass(frozen=True)
class PopsRegression:
    """``popsregression.POPSRegression(fit_intercept=True)``, otherwise with its defaults, on the raw columns.

    T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), doi:10.1088/2632-2153/ad9fce. Its
    own mean is the centre, σ its ``return_std``: misspecification (from random draws in the hypercube)
    and epistemic variance added. Nothing is calibrated. Weights are passed on as ``sample_weight``. Needs the
    package ``popsregression``, and memory for about 3 n m float64. Unit eV/atom.
    """

    name: str = "popsregression"

    def fit(self, rows: BaselineRows, seed: int) -> FittedPopsRegression:
        """Fit it; its draws come from numpy's global generator, which is seeded and put back."""
        from popsregression import POPSRegression

        kept = training_rows(rows)
        with _global_seed(seed):
            model = POPSRegression(fit_intercept=True).fit(kept.x, kept.y, sample_weight=kept.weights)
        return FittedPopsRegression(model)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator for a while: the reference has no seed of its own."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@dataclass(frozen=True, eq=False)
class FittedPopsRegression:
    """The fitted model of the other package."""

    model: Any

    def predict(self, rows: BaselineRows) -> Widths:
        """Return its mean and its ``return_std``."""
        mean, std = self.model.predict(rows.x, return_std=True)
        return Widths(np.asarray(mean), np.maximum(std, SMALLEST_EV_PER_ATOM))

    def n_bytes(self) -> int:
        """Bytes of its coefficients and two covariances; its samples are not needed for mean and σ."""
        return array_bytes([self.model.coef_, self.model.sigma_, self.model.misspecification_sigma_])


_SMALLEST_LEVERAGE = 1e-6  # as there
_MODES = 1e-8  # eigenvalues of the corrections, over the largest, that count, as there


@dataclass(frozen=True)
class PopsByResidual:
    """Hypercube of the pointwise corrections of all rows but those that the mean fits a hundred times better than most.

    ``popsregression`` 0.5 (T. D. Swinburne, D. Perez; not released when this was written) takes rows with a residual of
    at least ``minimum_relative_error`` times the root mean square one, where 0.4 takes the upper half by leverage.
    Otherwise the method of Mach. Learn.: Sci. Technol. 6, 015008 (2025) with its defaults: principal axes of the
    corrections, a box of their extremes, nothing clipped. Columns are standardised, and the variance of the uniform box
    is taken exactly, where it is sampled there. σ² is the misspecification and the epistemic variance; the mean is its
    own. Weights multiply squared errors.
    """

    name: str = "residual_pops"
    minimum_relative_error: float = 0.01

    def fit(self, rows: BaselineRows, seed: int) -> FittedPopsByResidual:  # noqa: ARG002 - nothing is drawn
        """Fit mean, corrections and box."""
        kept = training_rows(rows)
        linear = fit_linear(array_chunks(kept.x, kept.y, kept.weights), PopsConfig())
        root = np.sqrt(kept.weights)
        u = linear.design.transform(kept.x) @ linear.whitening * root[:, None]
        error = linear.residual * root
        leverage = np.maximum(np.sum(u**2, axis=1), _SMALLEST_LEVERAGE)
        rmse = float(np.sqrt(np.mean(error**2)))
        chosen = np.abs(error) >= self.minimum_relative_error * rmse
        corrections = ((error / leverage)[:, None] * (u @ linear.whitening.T))[chosen]
        values, vectors = np.linalg.eigh(corrections.T @ corrections)
        axes = vectors[:, values > _MODES * values.max()]
        projected = corrections @ axes
        low, high = (side(projected, axis=0) if axes.size else np.zeros(0) for side in (np.min, np.max))
        evidence, unit = linear.evidence, linear.y_scale
        return FittedPopsByResidual(
            design=linear.design,
            coefficients=evidence.coefficients * unit,
            whitening=linear.whitening * unit / np.sqrt(evidence.alpha),
            half=axes * (0.5 * (high - low) * unit / np.sqrt(3.0)),
            middle=axes @ (0.5 * (high + low) * unit),
        )


@dataclass(frozen=True, eq=False)
class FittedPopsByResidual(FittedBaseline):
    """Mean, roots of the epistemic and the misspecification covariance about the middle of the box; eV/atom."""

    design: Design
    coefficients: NDArray[np.float64]  # shape (m,)
    whitening: NDArray[np.float64]  # shape (m, m)
    half: NDArray[np.float64]  # shape (m, k)
    middle: NDArray[np.float64]  # shape (m,)

    def predict(self, rows: BaselineRows) -> Widths:
        """Mean and total standard deviation."""
        z = self.design.transform(rows.x)
        parts = [z @ self.whitening, z @ self.half, (z @ self.middle)[:, None]]
        variance = sum(np.sum(part**2, axis=1) for part in parts)
        return Widths(z @ self.coefficients, np.maximum(np.sqrt(variance), SMALLEST_EV_PER_ATOM))
