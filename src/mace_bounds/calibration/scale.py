"""σ(x): the expected size of a residual, as a frozen model that a head ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.scale_inputs import ScaleInputs
from mace_bounds.calibration.scale_kinds import STRATEGIES
from mace_bounds.errors import HeadError

KINDS: tuple[str, ...] = tuple(STRATEGIES)
FLOOR_SHARE = 1e-3
"""σ never falls below this share of its mean over the training rows."""
CEILING_SHARE = 3.0
"""σ never exceeds this multiple of its largest value over the training rows."""

_COMMON = ("seen_elements", "factor", "bounds")


@dataclass(frozen=True, eq=False)
class ScaleModel:
    """A fitted σ(x), eV/atom.

    ``factor`` makes 68.3 % of the training rows lie within ±σ, as a standard deviation would for Gaussian
    residuals. Outside the training range the columns are clamped (a factor of two beyond it), so that
    neither a huge leverage nor a tiny support can make σ explode or vanish; elements never seen count as an
    average element, at the largest distance.

    Attributes
    ----------
    kind : str
        ``"constant"``; ``"pops"``: c0 + c1·support; ``"variance"``: root of a non-negative sum of squared widths and
        element terms; ``"log_ridge"``: log-linear in log widths, log distance to the training rows and atomic
        fractions; ``"log_features"``: the same with the model's features; ``"kernel"``: with Gaussian kernels around
        training rows too; ``"low_rank"``: a non-negative sum with |Uᵀu|² of features and fractions.
    parameters : dict of str to ndarray
        Arrays of the kind.
    seen_elements : ndarray of bool, shape (n_elements,)
        Elements present in the training rows.
    factor : ndarray, shape ()
        Normalisation.
    bounds : ndarray, shape (2,)
        Floor and ceiling of σ, eV/atom.
    scores : dict of str to float
        Weighted interval score (68, 90, 95 %) on unseen groups of each kind that was tried, eV/atom; empty if
        none were compared.
    """

    kind: str
    parameters: dict[str, NDArray[np.float64]]
    seen_elements: NDArray[np.bool_]
    factor: NDArray[np.float64]
    bounds: NDArray[np.float64]
    scores: dict[str, float] = field(default_factory=dict)

    def sigma(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Return σ of each row, shape (n,), eV/atom; finite and positive for every valid input."""
        self._check(inputs)
        size = STRATEGIES[self.kind].size(self.parameters, inputs)
        clipped: NDArray[np.float64] = np.clip(float(self.factor) * size, self.bounds[0], self.bounds[1])
        return clipped

    def unseen(self, inputs: ScaleInputs) -> NDArray[np.bool_]:
        """Return which rows hold an element that no training row had, shape (n,): flag these."""
        return np.asarray((inputs.fractions[:, ~self.seen_elements] > 0).any(axis=1), dtype=np.bool_)

    def _check(self, inputs: ScaleInputs) -> None:
        n_elements = len(self.seen_elements)
        if inputs.fractions.shape[1] != n_elements:
            raise HeadError(
                f"Expected fractions of {n_elements} elements, got {inputs.fractions.shape[1]}; use the element "
                "order of the model the head was fitted with."
            )
        centre = self.parameters.get("space_centre")
        if centre is not None and inputs.columns.shape[1] != len(centre):
            raise HeadError(
                f"Expected {len(centre) - n_elements} features per row, got "
                f"{inputs.columns.shape[1] - n_elements}; give the features with which the scale was fitted."
            )

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays for safetensors; the kind and the scores go to :meth:`to_config`."""
        return {**self.parameters, **{name: np.asarray(getattr(self, name)) for name in _COMMON}}

    def to_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return {"kind": self.kind, "scores": dict(self.scores)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.generic]], config: Mapping[str, object]
    ) -> ScaleModel:
        """Rebuild a model from :meth:`to_tensors` and :meth:`to_config`."""
        kind, scores = str(config.get("kind")), config.get("scores", {})
        needed = (*_COMMON, *STRATEGIES[kind].arrays) if kind in STRATEGIES else _COMMON
        missing = [name for name in needed if name not in tensors]
        if missing or kind not in STRATEGIES or not isinstance(scores, Mapping):
            raise HeadError(
                f"Expected the arrays and kind of a scale model, got kind {kind} without {missing}; "
                "fit the head anew."
            )
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in tensors.items()}
        return cls(
            kind=kind,
            parameters={name: values for name, values in arrays.items() if name not in _COMMON},
            seen_elements=arrays["seen_elements"].astype(np.bool_),
            factor=arrays["factor"],
            bounds=arrays["bounds"],
            scores={str(name): float(value) for name, value in scores.items()},
        )
