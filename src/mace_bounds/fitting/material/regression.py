"""The linear fit of all rows of a material, and the same with folds or whole families of frames left out.

E/N = θ · [φ/N, fractions], F = -θ · [∂φ/∂x, 0] and stress = θ · [∂φ/∂ε, 0] / V, each less what the frozen model says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import conformal_quantile
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.fitting.material.config import ENERGIES, MaterialConfig
from mace_bounds.fitting.material.derivatives import GradientShards
from mace_bounds.head import (
    Design,
    PopsConfig,
    PopsHead,
    PopsPrediction,
    TsqrFactor,
    fit_pops,
    predict,
)

if TYPE_CHECKING:
    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

DRAWS = "ellipsoid"
"""The posterior that draws come from: on left-out families its spread was nearest to the errors."""
MINIMUM_FAMILY = 40
"""Frames that a family needs for conformal quantiles of its own."""
MINIMUM_FRAMES = 60
_STEPS = 50
_SAME = 1e-6  # scales that change by less, relatively, have converged
_TWO_SIDED_95 = 1.959963984540054  # standard deviations of a Gaussian
_CHUNK_ROWS = 4096

POPS = PopsConfig(clip_percent=0.0, also=(DRAWS,), fit_intercept=False)
"""The box of *all* corrections, whose support is the envelope, and the ellipsoid; fractions are the intercept."""


_BOX = replace(POPS, also=())


@dataclass(frozen=True, eq=False)
class MaterialRows:
    """Everything that is fitted, for n frames, with P columns: features per atom and 118 atomic fractions."""

    x: Array  # shape (n, P)
    y: Array  # shape (n,): (E_DFT - E_model) / N, eV/atom
    fractions: Array  # shape (n, 118)
    families: NDArray[np.str_]  # shape (n,)
    shards: GradientShards

    @property
    def columns(self) -> NDArray[np.int64]:
        """The columns that are fitted: features, and fractions of elements that occur."""
        n_features = self.x.shape[1] - self.fractions.shape[1]
        return np.concatenate(
            [np.arange(n_features), n_features + np.flatnonzero(self.fractions.any(axis=0))]
        )

    def parts(self, frames: Mask) -> Iterator[tuple[str, Array, Array]]:
        """Rows of the frames of a mask (n,), as (kind, x (k, C), y (k,)), in a definite order and bounded memory.

        C columns are those of :attr:`columns`.
        """
        chosen, columns = np.flatnonzero(frames), self.columns
        for start in range(0, len(chosen), _CHUNK_ROWS):
            rows = chosen[start : start + _CHUNK_ROWS]
            yield ENERGIES, self.x[np.ix_(rows, columns)], self.y[rows]
        for part in self.shards.rows():
            if frames[part.frame]:
                zeros = np.zeros((len(part.x), len(columns) - part.x.shape[1]))
                yield part.kind, np.concatenate([part.x, zeros], axis=1), part.y


def row_scales(rows: MaterialRows, frames: Mask, config: MaterialConfig) -> dict[str, float]:
    """By what each kind of rows is multiplied: √weight over its own root mean square residual, found by iteration.

    One pass makes a QR factor for every kind (TSQR); after it, fits of other scales cost nothing. The fixed point is
    that of maximum likelihood for Gaussian noise of one size for each kind, where the weights are one.

    Parameters
    ----------
    rows : MaterialRows
    frames : ndarray of bool, shape (n,)
        Which are fitted.
    config : MaterialConfig
        Weights.

    Returns
    -------
    dict of str to float
        By kind, for those that have rows: 1/(eV/atom), Å/eV, Å³/eV.
    """
    factors: dict[str, TsqrFactor] = {}
    for kind, x, y in rows.parts(frames):
        factors.setdefault(kind, TsqrFactor(x.shape[1])).update(x, y)
    r = {kind: factor.r[:, 1:] for kind, factor in factors.items()}
    scale = {
        kind: 1.0 / max(float(np.linalg.norm(r[kind][:, -1])) / np.sqrt(factors[kind].n_rows), 1e-12)
        for kind in r
    }
    for _ in range(_STEPS):
        together = np.concatenate([scale[kind] * r[kind] for kind in r])
        theta = np.linalg.lstsq(together[:, :-1], together[:, -1], rcond=1e-12)[0]
        before = dict(scale)
        for kind in r:
            rest = r[kind] @ np.append(-theta, 1.0)
            rms = max(float(np.linalg.norm(rest)) / np.sqrt(factors[kind].n_rows), 1e-12)
            scale[kind] = float(np.sqrt(config.weight(kind))) / rms
        if all(abs(scale[kind] / before[kind] - 1.0) < _SAME for kind in r):
            break
    return scale


def fit_rows(
    rows: MaterialRows, frames: Mask, scale: Mapping[str, float], config: PopsConfig = POPS
) -> PopsHead:
    """POPS on all rows of some frames, each kind multiplied by its scale; a head of all P columns.

    The offset of every element is taken off before, so that the prior does not shrink it, and put back.
    """
    n_features = rows.x.shape[1] - rows.fractions.shape[1]
    elements = rows.columns[n_features:] - n_features
    found = np.linalg.lstsq(rows.fractions[np.ix_(frames, elements)], rows.y[frames], rcond=1e-12)[0]
    offsets = np.asarray(found, dtype=np.float64)

    def chunks() -> Iterator[tuple[Array, Array, None]]:
        for kind, x, y in rows.parts(frames):
            yield x * scale[kind], (y - x[:, n_features:] @ offsets) * scale[kind], None

    head = fit_pops(chunks, config).head
    added = np.concatenate([np.zeros(n_features), offsets])[head.design.active] * head.design.scale
    coefficients = head.ridge.coefficients + added
    design = _spread(head.design, rows.columns, rows.x.shape[1])
    return replace(head, design=design, ridge=replace(head.ridge, coefficients=coefficients))


def _spread(design: Design, columns: NDArray[np.int64], n_columns: int) -> Design:
    """The design of fitted columns as one of all columns, the others being constant zeros."""
    active, constant, reference = (
        np.zeros(n_columns, dtype=bool),
        np.ones(n_columns, dtype=bool),
        np.zeros(n_columns),
    )
    active[columns], constant[columns] = design.active, design.constant
    reference[columns] = design.reference
    return replace(design, active=active, constant=constant, reference=reference)


def left_out(
    rows: MaterialRows, fit: Mask, folds: NDArray[np.int64], scale: Mapping[str, float]
) -> PopsPrediction:
    """What heads say of the frames of a mask that they have not seen, in the order of the frames."""
    out: dict[str, NDArray[Any]] = {}
    for fold in np.unique(folds[fit]):
        held = fit & (folds == fold)
        predicted = predict(fit_rows(rows, fit & (folds != fold), scale, _BOX), rows.x[held])
        for name, values in predicted.__dict__.items():
            out.setdefault(name, np.zeros(len(fit), dtype=values.dtype))[held] = values
    return PopsPrediction(**{name: values[fit] for name, values in out.items()})


def family_stretch(
    rows: MaterialRows, fit: Mask, scale: Mapping[str, float]
) -> tuple[float, list[dict[str, Any]]]:
    """By what the deviations of draws are multiplied, and errors of families that took no part in the fit.

    Each family is left out in turn. 95 % of its frames would be within 1.96 standard deviations with a factor of its
    own (a conformal quantile); the largest is taken, since draws are meant for structures unlike those of the fit. It
    is never below one, and one where there are fewer than three families.
    """
    lines: list[dict[str, Any]] = []
    for family in np.unique(rows.families[fit]):
        own = fit & (rows.families == family)
        if own.sum() < MINIMUM_FAMILY or (fit & ~own).sum() < MINIMUM_FRAMES:
            continue
        said = predict(fit_rows(rows, fit & ~own, scale), rows.x[own])
        error = rows.y[own] - said.mean
        inside = (said.support_lower <= rows.y[own]) & (rows.y[own] <= said.support_upper)
        ratio = np.abs(error) / np.maximum(said.ellipsoid_std, 1e-12)
        lines.append(
            {
                "family": str(family),
                "n": int(own.sum()),
                "mae_mev_per_atom": MEV_PER_EV * float(np.abs(error).mean()),
                "mean_error_over_std": float(ratio.mean()),
                "stretch": conformal_quantile(ratio, 0.95) / _TWO_SIDED_95,
                "in_envelope": float(inside.mean()),
            }
        )
    return max([1.0, *(line["stretch"] for line in lines)] if len(lines) >= 3 else [1.0]), lines
