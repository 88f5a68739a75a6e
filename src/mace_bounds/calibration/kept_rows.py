"""What a head keeps of its labelled rows: which they are, where they lie, how far off the model is and how wide σ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration.inputs import square_distances
from mace_bounds.errors import HeadError

Array = NDArray[np.float64]

FAR_QUANTILE = 0.95
"""Share of the head's rows whose nearest row of another composition is nearer than :attr:`KeptRows.far`."""

_CLAMP = 6.0  # standard deviations to which a standardised feature is clamped, as in the kernels of the scale
TEXTS = ("ids", "formulas")
"""Kept as UTF-8 JSON."""
UNKNOWN = ("sigma_ev_per_atom", "covered_above_level")
"""NaN, in a file infinity, where every head has seen the row."""
_SAMPLE = 1000  # rows from which the usual distance is taken
_CELLS = 1 << 22  # distances in hand at a time


@dataclass(frozen=True, eq=False, repr=False)
class KeptRows:
    """Labelled rows of a head's own data, all or a sample, in single precision.

    What is said of their bounds comes from heads that have not seen their compositions: the head itself for rows that
    only measure it, those of the folds for the others.
    """

    ids: tuple[str, ...]
    formulas: tuple[str, ...]  # reduced
    # shape (n, p): features per atom, standardised and clamped, over √p: the distance between two points is the root
    # mean square difference of a feature, in standard deviations of the head's data
    points: NDArray[np.float32]
    error_ev_per_atom: NDArray[np.float32]  # shape (n,): E_DFT - E_model
    sigma_ev_per_atom: NDArray[np.float32]  # shape (n,): σ; NaN where every head has seen the row
    # shape (n,): level above which the row's bounds hold its label; NaN likewise
    covered_above_level: NDArray[np.float32]
    centre: Array  # shape (p,): mean of the features of the head's data
    spread: Array  # shape (p,): their standard deviation; ``inf`` where it is none
    typical_terms: (
        Array  # shape (n_terms,): means of :meth:`ScaleModel.terms` over rows that are new to the head
    )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"KeptRows({len(self)} rows)"

    @classmethod
    def of(
        cls,
        names: Sequence[Sequence[str]],
        features: Array,
        measured: Mapping[str, Array],
        typical_terms: Array,
        most: int,
        hashes: Sequence[str],
    ) -> Self:
        """Keep rows, of more than ``most`` those of the smallest hashes, which is a sample at random.

        Parameters
        ----------
        names : two sequences of str, each of length n
            Ids and reduced formulas.
        features : ndarray, shape (n, p)
            Features per atom of all rows, from which centre and spread come.
        measured : mapping of str to ndarray, shape (n,)
            ``error_ev_per_atom``, ``sigma_ev_per_atom``, ``covered_above_level``.
        typical_terms : ndarray, shape (n_terms,)
        most : int
            Rows to keep.
        hashes : sequence of str, shape (n,)
            Of the structures.
        """
        chosen = np.sort(np.argsort(np.asarray(hashes, dtype=str), kind="stable")[:most])
        centre, spread = features.mean(axis=0), features.std(axis=0)
        spread = np.where(spread > 1e-10 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
        ids, formulas = (tuple(str(column[k]) for k in chosen) for column in names)
        return cls(
            ids=ids,
            formulas=formulas,
            points=_points(features[chosen], centre, spread).astype(np.float32),
            centre=centre,
            spread=spread,
            typical_terms=typical_terms,
            **{name: values[chosen].astype(np.float32) for name, values in measured.items()},
        )

    def and_rows(
        self, names: Sequence[Sequence[str]], features: Array, measured: Mapping[str, Array]
    ) -> Self:
        """These rows and m more, which replace those of their ids and formulas; parameters as in :meth:`of`."""
        new = set(zip(*names, strict=True))
        left = [k for k, pair in enumerate(zip(self.ids, self.formulas, strict=True)) if pair not in new]
        arrays: dict[str, Any] = {"points": _points(features, self.centre, self.spread), **measured}
        joined = {
            name: np.concatenate([getattr(self, name)[left], values.astype(np.float32)])
            for name, values in arrays.items()
        }
        ids, formulas = (
            (*(old[k] for k in left), *map(str, column))
            for old, column in zip((self.ids, self.formulas), names, strict=True)
        )
        return replace(self, ids=ids, formulas=formulas, **joined)

    def distances(self, features: Array) -> Array:
        """Distances of rows (m, p) of features per atom to the kept ones, shape (m, n)."""
        points = _points(features, self.centre, self.spread)
        return np.sqrt(square_distances(points, self.points.astype(np.float64)))

    def sigma_percentile(self, sigma_ev_per_atom: float) -> float | None:
        """Share of the rows with a σ that is not larger, in percent; None without such rows."""
        known = self.sigma_ev_per_atom[np.isfinite(self.sigma_ev_per_atom)]
        return float(100.0 * np.mean(known <= sigma_ev_per_atom)) if len(known) else None

    @cached_property
    def far(self) -> float:
        """Distance to the nearest row of another composition that 95 % of the rows keep within; NaN without any."""
        points, formulas = self.points.astype(np.float64), np.array(self.formulas)
        sample = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(np.int64))
        nearest = np.full(len(sample), np.inf)
        step = max(_CELLS // max(len(self), 1), 1)
        for start in range(0, len(sample), step):
            rows = sample[start : start + step]
            square = square_distances(points[rows], points)
            square[formulas[rows, None] == formulas] = np.inf
            nearest[start : start + step] = np.sqrt(square.min(axis=1, initial=np.inf))
        known = nearest[np.isfinite(nearest)]
        return float(np.quantile(known, FAR_QUANTILE)) if len(known) else float("nan")

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays for safetensors; texts as UTF-8 JSON, infinity for what is not known."""
        tensors = {name: np.asarray(value) for name, value in self.__dict__.items() if name in ARRAYS}
        for name in UNKNOWN:
            tensors[name] = np.where(np.isnan(tensors[name]), np.float32(np.inf), tensors[name])
        for name in TEXTS:
            text = json.dumps(getattr(self, name), ensure_ascii=False).encode("utf-8", "backslashreplace")
            tensors[name] = np.frombuffer(text, dtype=np.uint8)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild them; HeadError if the texts are none, or not one for each row."""
        values: dict[str, Any] = {name: tensors[name] for name in ARRAYS}
        for name in UNKNOWN:
            values[name] = np.where(np.isinf(values[name]), np.float32(np.nan), values[name])
        for name in TEXTS:
            values[name] = _texts(tensors[name], len(values["points"]))
        return cls(**values)


ARRAYS: dict[str, tuple[int | str, ...]] = {
    "points": ("kept", "features"),
    "error_ev_per_atom": ("kept",),
    "sigma_ev_per_atom": ("kept",),
    "covered_above_level": ("kept",),
    "centre": ("features",),
    "spread": ("features",),
    "typical_terms": ("terms",),
}
"""Shapes of the arrays, as in :data:`mace_bounds.calibration.scale_kinds.Shapes`."""


def _texts(data: NDArray[Any], n: int) -> tuple[str, ...]:
    try:
        texts = json.loads(data.tobytes())
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, list) or len(texts) != n or not all(isinstance(text, str) for text in texts):
        raise HeadError("the names of the head's rows cannot be read; fit or download it again.")
    return tuple(texts)


def _points(features: Array, centre: Array, spread: Array) -> Array:
    z = np.clip((features - centre) / spread, -_CLAMP, _CLAMP)
    return np.asarray(z / np.sqrt(max(features.shape[1], 1)))
