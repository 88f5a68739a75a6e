"""σ(x): the expected size of a residual, as a frozen model that a head ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration._scale_inputs import ScaleInputs
from mace_bounds.errors import HeadError

KINDS: tuple[str, ...] = ("constant", "pops", "log_ridge", "variance")
FLOOR_SHARE = 1e-3
"""σ never falls below this share of its mean over the training rows."""
CEILING_SHARE = 3.0
"""σ never exceeds this multiple of its largest value over the training rows."""

_ARRAYS = (
    "coefficients",
    "element_coefficients",
    "seen_elements",
    "floors",
    "low",
    "high",
    "factor",
    "bounds",
)


@dataclass(frozen=True, eq=False)
class ScaleModel:
    """A fitted σ(x), eV/atom.

    ``factor`` makes 68.3 % of the training rows lie within ±σ, as a standard deviation would for Gaussian
    residuals. Outside the training range the columns are clamped (a factor of two beyond it), so that
    neither a huge leverage nor a tiny support can make σ explode or vanish; elements never seen count as an
    average element.

    Attributes
    ----------
    kind : str
        ``"constant"``; ``"pops"``: c0 + c1·support; ``"log_ridge"``: exp(c0 + c·log columns + elements);
        ``"variance"``: sqrt(c·[1, support², box², leverage, 1/n] + elements).
    coefficients : ndarray, shape (k,)
        Coefficients of the kind's columns, intercept first.
    element_coefficients : ndarray, shape (n_elements,)
        Coefficients of the atomic fractions (zeros where the kind has none).
    seen_elements : ndarray of bool, shape (n_elements,)
        Elements present in the training rows.
    floors : ndarray, shape (4,)
        Smallest support, box, leverage and size whose logarithm is told apart.
    low, high : ndarray, shape (k - 1,)
        Range to which the columns after the intercept are clamped.
    factor : ndarray, shape ()
        Normalisation.
    bounds : ndarray, shape (2,)
        Floor and ceiling of σ, eV/atom.
    scores : dict of str to float
        Weighted interval score (68, 90, 95 %) on unseen groups of each kind that was tried, eV/atom; empty if
        none were compared.
    """

    kind: str
    coefficients: NDArray[np.float64]
    element_coefficients: NDArray[np.float64]
    seen_elements: NDArray[np.bool_]
    floors: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    factor: NDArray[np.float64]
    bounds: NDArray[np.float64]
    scores: dict[str, float] = field(default_factory=dict)

    def sigma(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Return σ of each row, shape (n,), eV/atom; finite and positive for every valid input."""
        if inputs.fractions.shape[1] != len(self.element_coefficients):
            raise HeadError(
                f"Expected fractions of {len(self.element_coefficients)} elements, got "
                f"{inputs.fractions.shape[1]}; use the element order of the model the head was fitted with."
            )
        columns = kind_columns(self.kind, inputs, self.floors)
        columns[:, 1:] = np.clip(columns[:, 1:], self.low, self.high)
        linear = columns @ self.coefficients + inputs.fractions @ self.element_coefficients
        size = link(self.kind, linear, float(np.log(self.bounds[1] / self.factor)))
        clipped: NDArray[np.float64] = np.clip(float(self.factor) * size, self.bounds[0], self.bounds[1])
        return clipped

    def unseen(self, inputs: ScaleInputs) -> NDArray[np.bool_]:
        """Return which rows hold an element that no training row had, shape (n,): flag these."""
        return np.asarray((inputs.fractions[:, ~self.seen_elements] > 0).any(axis=1), dtype=np.bool_)

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for safetensors; the kind and the scores go to :meth:`to_config`."""
        return {name: np.asarray(getattr(self, name)) for name in _ARRAYS}

    def to_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return {"kind": self.kind, "scores": dict(self.scores)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], config: Mapping[str, object]
    ) -> ScaleModel:
        """Rebuild a model from :meth:`to_tensors` and :meth:`to_config`."""
        missing = [name for name in _ARRAYS if name not in tensors]
        kind, scores = str(config.get("kind")), config.get("scores", {})
        if missing or kind not in KINDS or not isinstance(scores, Mapping):
            raise HeadError(
                f"Expected the arrays and kind of a scale model, got kind {kind} without {missing}; "
                "fit the head anew."
            )
        arrays = {name: np.asarray(tensors[name], dtype=np.float64) for name in _ARRAYS}
        return cls(
            kind=kind,
            coefficients=arrays["coefficients"],
            element_coefficients=arrays["element_coefficients"],
            seen_elements=arrays["seen_elements"].astype(np.bool_),
            floors=arrays["floors"],
            low=arrays["low"],
            high=arrays["high"],
            factor=arrays["factor"],
            bounds=arrays["bounds"],
            scores={str(name): float(value) for name, value in scores.items()},
        )


def kind_columns(kind: str, inputs: ScaleInputs, floors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns of a kind, intercept first, shape (n, k)."""
    ones = np.ones((len(inputs), 1))
    if kind == "constant":
        return ones
    if kind == "pops":
        return np.column_stack([ones, inputs.support_width])
    if kind == "log_ridge":
        return np.column_stack([ones, inputs.log_columns(floors)])
    if kind == "variance":
        return inputs.variance_columns()
    raise HeadError(f"Expected a scale of kind {', '.join(KINDS)}, got {kind}; choose one of these.")


def link(kind: str, linear: NDArray[np.float64], log_cap: float = np.inf) -> NDArray[np.float64]:
    """Turn a kind's linear predictor into a size; ``log_cap`` keeps the exponential from overflowing."""
    if kind == "log_ridge":
        return np.exp(np.minimum(linear, min(log_cap, 600.0)))
    if kind == "variance":
        return np.sqrt(np.maximum(linear, 0.0))
    return np.maximum(linear, 0.0)
