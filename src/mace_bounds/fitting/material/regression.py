"""The linear fit of all rows of a material, and the same with folds or whole families of frames left out.

E/N = θ · [φ/N, fractions], F = -θ · [∂φ/∂x, 0] and stress = θ · [∂φ/∂ε, 0] / V, each less what the frozen model says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import ELLIPSOID, ENVELOPE, Material, conformal_quantile
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

MINIMUM_FAMILY = 40
"""Frames that a family needs for conformal quantiles of its own."""
MINIMUM_FRAMES = 60
MINIMUM_LEFT_OUT = 19
"""Frames of a family that is left out, without which there is no quantile of 95 %."""
MINIMUM_FAMILIES = 3
"""Families left out that say something of others."""
_STEPS = 50
_SAME = 1e-6  # scales that change by less, relatively, have converged
_TWO_SIDED_95 = 1.959963984540054  # standard deviations of a Gaussian
_UNIFORM = 1.0 / np.sqrt(3.0)  # standard deviation of a uniform spread, as a share of its half-width
_CHUNK_ROWS = 4096

POPS = PopsConfig(clip_percent=0.0, mode_threshold=1e-20, also=(ELLIPSOID,), fit_intercept=False)
"""The box of *all* corrections along *all* axes, whose support is the envelope, and the ellipsoid.

Fractions are the intercept. Axes of the smallest corrections are those along which frames differ most: none is dropped.
"""


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


@dataclass(frozen=True, eq=False)
class LeftOutFamily:
    """The frames of a family, and what a head says of them that was fitted without all of them."""

    family: str
    error: Array  # shape (n,), eV/atom
    said: PopsPrediction

    @property
    def in_envelope(self) -> float:
        """Share of the frames within the envelope."""
        low, high = self.said.support_lower - self.said.mean, self.said.support_upper - self.said.mean
        return float(((low <= self.error) & (self.error <= high)).mean())

    def std_of_envelope(self) -> float:
        """Median of the ellipsoid's standard deviation as a share of half of the envelope."""
        half = 0.5 * (self.said.support_upper - self.said.support_lower)
        return float(np.median(self.said.ellipsoid_std / np.maximum(half, 1e-12)))

    def quantile(self, std: Array, level: float) -> float:
        """Conformal quantile of |error| / std, or the largest where there are too few frames for the level."""
        ratio = np.abs(self.error) / np.maximum(std, 1e-12)
        found = conformal_quantile(ratio, level)
        return found if np.isfinite(found) else float(ratio.max())


def left_out_families(rows: MaterialRows, fit: Mask, scale: Mapping[str, float]) -> list[LeftOutFamily]:
    """Each family in turn left out of the fit; families, or rests, of too few frames are passed over."""
    found = []
    for family in np.unique(rows.families[fit]):
        own = fit & (rows.families == family)
        if own.sum() < MINIMUM_LEFT_OUT or (fit & ~own).sum() < MINIMUM_FRAMES:
            continue
        said = predict(fit_rows(rows, fit & ~own, scale), rows.x[own])
        found.append(LeftOutFamily(str(family), rows.y[own] - said.mean, said))
    return found


def material_of(
    elements: tuple[int, ...], reference: str, families: list[LeftOutFamily], levels: Sequence[float]
) -> tuple[Material, list[dict[str, Any]]]:
    """The posterior of draws, its stretch and the intervals of unknown families, and lines about families left out.

    Draws come from the ellipsoid, unless it is wider on some family than a uniform spread over the envelope would be:
    then it reaches where no correction does, and draws are uniform in the box. Of every level the multiple of the
    standard deviation is that of the worst family; draws are stretched so that 95 % of its frames are within 1.96
    standard deviations, and never by less than one. Fewer than three families tell nothing of others.
    """
    wide = any(family.std_of_envelope() > _UNIFORM for family in families)
    material = Material(elements, reference, ENVELOPE if wide else ELLIPSOID, 1.0)
    lines, stds = [], [material.std(family.said) for family in families]
    for family, std in zip(families, stds, strict=True):
        error = np.abs(family.error)
        lines.append(
            {
                "family": family.family,
                "n": len(error),
                "mae_mev_per_atom": MEV_PER_EV * float(error.mean()),
                "mean_error_over_std": float((error / np.maximum(std, 1e-12)).mean()),
                "stretch": family.quantile(std, 0.95) / _TWO_SIDED_95,
                "in_envelope": family.in_envelope,
            }
        )
    if len(families) < MINIMUM_FAMILIES:
        return material, lines
    worst = [max(f.quantile(std, x) for f, std in zip(families, stds, strict=True)) for x in levels]
    stretch = max(
        1.0, max(f.quantile(std, 0.95) for f, std in zip(families, stds, strict=True)) / _TWO_SIDED_95
    )
    return replace(material, stretch=stretch, left_out=tuple(worst)), lines
