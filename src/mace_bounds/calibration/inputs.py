"""From rows of a feature store to what a head and its scale see: design matrix, widths, and where a row lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import HeadError
from mace_bounds.features import atomic_fractions, design_matrix

if TYPE_CHECKING:
    from mace_bounds.features import FeatureRows
    from mace_bounds.head import PopsPrediction

N_LANDMARKS = 128
"""Most training rows around which a kernel sits."""
KERNEL_WIDTH = 0.5
"""Width of a kernel, in median distances between landmarks."""

_FAR = 6.0  # standard deviations to which a standardised feature is clamped
_SAME = 1e-9  # a constant column that differs by less, relative to its value (at least 1), is the same
_RIDGE = 1e-3  # of the mean eigenvalue: directions of less variance are not told apart
_SMALLEST_MODE = 1e-3  # of the largest: kernel modes below it are round-off and luck
_MIN_REST = 1e-3  # smallest 1 - h

Arrays = dict[str, NDArray[np.float64]]
_Float = TypeVar("_Float", np.float32, np.float64)
_TABLES = ("fractions", "features")
_OPTIONAL = ("features", "ellipsoid_std")


@dataclass(frozen=True, eq=False)
class ScaleInputs:
    """Quantities of n rows from which σ(x) is predicted."""

    support_width: NDArray[np.float64]  # shape (n,): half-width of the POPS support, eV/atom
    box_std: NDArray[np.float64]  # shape (n,): misspecification standard deviation of the hypercube, eV/atom
    # shape (n,): leverage of the row against the training rows; leave-one-out values for training rows
    leverage: NDArray[np.float64]
    epistemic_std: NDArray[np.float64]  # shape (n,): standard deviation from the weights' posterior, eV/atom
    # shape (n, n_elements): atomic fractions in the order of the model's elements; rows sum to one
    fractions: NDArray[np.float64]
    # shape (n, p): the model's features per atom, as they are; no columns if not given
    features: NDArray[np.float64] | None = None
    # shape (n,): standard deviation of the ellipsoid posterior, eV/atom, where the head has one
    ellipsoid_std: NDArray[np.float64] | None = None
    # rows of the model's own training, from which a scale may learn too; none where rows are predicted
    trained: TrainedErrors | None = None

    def __post_init__(self) -> None:
        n, together = len(self), list[NDArray[np.float64]]()
        for name in self._given():
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.ndim != (2 if name in _TABLES else 1) or len(array) != n:
                raise HeadError(f"{name} has the shape {array.shape}, and there are {n} rows; align them.")
            object.__setattr__(self, name, array)
            values = np.abs(array) if name == "features" else array
            together.append(values if values.ndim == 2 else values[:, None])
        everything = np.concatenate(together, axis=1)
        if (good := (everything >= 0) & (everything < np.inf)).all():
            return
        wrong = int(np.argmin(good.all(axis=0)))
        ends = np.cumsum([part.shape[1] for part in together])
        name = self._given()[int(np.searchsorted(ends, wrong, side="right"))]
        raise HeadError(f"{name} has values that are not finite or below zero; drop those rows.")

    def __len__(self) -> int:
        return len(self.support_width)

    @property
    def n_trained(self) -> int:
        """Number of rows of the model's own training that come with these."""
        return 0 if self.trained is None else len(self.trained.residual)

    def _given(self) -> list[str]:
        names = [field.name for field in fields(self) if field.name != "trained"]
        return [name for name in names if name not in _OPTIONAL or getattr(self, name) is not None]

    def take(self, rows: NDArray[np.generic]) -> ScaleInputs:
        """Return the rows chosen by an index or a boolean mask."""
        return ScaleInputs(
            **{name: getattr(self, name)[rows] for name in self._given()}, trained=self.trained
        )

    def followed_by(self, others: ScaleInputs) -> ScaleInputs:
        """Return these rows and those of others, which have the same columns."""
        both: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in self._given()
        }
        return ScaleInputs(**both)

    @cached_property
    def columns(self) -> NDArray[np.float64]:
        """Features, then atomic fractions: the space in which distances are measured, shape (n, p + n_elements)."""
        return self.fractions if self.features is None else np.column_stack([self.features, self.fractions])

    @property
    def elements(self) -> NDArray[np.bool_]:
        """Which elements occur in any row, shape (n_elements,)."""
        return np.asarray((self.fractions > 0).any(axis=0), dtype=np.bool_)

    def width_names(self) -> list[str]:
        """Return the names of the columns of :meth:`widths`."""
        base = ["support_width", "box_std", "leverage"]
        return base if self.ellipsoid_std is None else [*base, "ellipsoid_std"]

    def widths(self) -> NDArray[np.float64]:
        """Return support, box, leverage and, where there is one, ellipsoid, shape (n, 3 or 4).

        All are of energies per atom: nothing here may depend on the choice of the cell of a crystal.
        """
        return np.column_stack([getattr(self, name) for name in self.width_names()])

    def floors(self) -> NDArray[np.float64]:
        """Return the smallest value of each of :meth:`widths` that a logarithm tells apart: 1e-3 of the median."""
        return np.maximum(1e-3 * np.median(self.widths(), axis=0), 1e-12)

    def log_columns(self, floors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`widths`, each floored first; HeadError if there are others than floors."""
        widths = self.widths()
        if widths.shape[1] != len(floors):
            raise HeadError(
                f"the scale was fitted with {len(floors)} widths per row, and there are {widths.shape[1]}; use "
                "those of its own head."
            )
        return np.log(np.maximum(widths, floors))


@dataclass(frozen=True, eq=False)
class TrainedErrors:
    """Errors of n rows whose compositions the model itself was trained on, and what heads without them say of them.

    They are smaller than those of new crystals, but large in the same places: a scale may learn from them where, and
    never how large.
    """

    inputs: ScaleInputs
    residual: NDArray[np.float64]  # shape (n,): about the centre of the intervals, eV/atom
    groups: NDArray[np.str_]  # shape (n,): composition of each


@dataclass(frozen=True, eq=False)
class KernelSpace:
    """Standardised columns of the training rows and the metric of their correlation."""

    # centre, spread, shape (c,): mean and standard deviation of features and fractions; spread ``inf`` for a
    # constant column
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    # shape (c, c): W such that |(x - centre) / spread · W|² + ``offset`` is the leverage of a row: LLPR's
    # xᵀC⁻¹x with an intercept
    metric: NDArray[np.float64]
    offset: NDArray[np.float64]  # shape (): one over the number of training rows

    @classmethod
    def fit(cls, inputs: ScaleInputs) -> KernelSpace:
        """Learn means, spreads and metric from the training rows, each counting once."""
        x = inputs.columns
        centre, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-10 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
        z = (x - centre) / spread
        values, vectors = np.linalg.eigh(z.T @ z)
        ridge = _RIDGE * max(float(values.mean()), 1e-300)
        return cls(centre, spread, vectors / np.sqrt(np.maximum(values, 0.0) + ridge), np.array(1.0 / len(x)))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float64]]) -> KernelSpace:
        """Rebuild from :meth:`to_arrays`."""
        return cls(**{name: arrays[f"space_{name}"] for name in ("centre", "spread", "metric", "offset")})

    def to_arrays(self) -> Arrays:
        """Arrays to keep in the head."""
        return {f"space_{name}": np.asarray(values) for name, values in self.__dict__.items()}

    def leverage(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Leverage of rows that were not in the fit, shape (n,); ``inf`` where a constant column differs."""
        away = inputs.columns - self.centre
        u = (away / self.spread) @ self.metric
        new = np.isinf(self.spread) & (np.abs(away) > _SAME * np.maximum(1.0, np.abs(self.centre)))
        return np.where(new.any(axis=1), np.inf, self.offset + np.einsum("ij,ij->i", u, u))

    def left_out_leverage(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Leverage that each training row has against the others, shape (n,) (Sherman-Morrison)."""
        leverage = self.leverage(inputs)
        return np.asarray(leverage / np.maximum(1.0 - leverage, _MIN_REST))

    def features(self, inputs: ScaleInputs) -> NDArray[np.float64]:
        """Return the standardised features, clamped and divided by √p, shape (n, p).

        The division makes all of them together weigh as much in a ridge as one column of unit variance.
        """
        if inputs.features is None:
            return np.empty((len(inputs), 0))
        p = inputs.features.shape[1]
        z = np.clip((inputs.features - self.centre[:p]) / self.spread[:p], -_FAR, _FAR)
        return np.asarray(z / np.sqrt(max(p, 1)))


def landmarks(points: NDArray[np.float64], order: NDArray[np.int64]) -> tuple[Arrays, NDArray[np.float64]]:
    """Place kernels exp(-|x - z|²/2ℓ²) on rows, and return their whitened modes (Nyström).

    ``points`` (n, p): standardised features of the training rows; ``order`` (n,): the rows in the order in
    which they may become landmarks.
    Returns ``arrays``: ``landmarks`` (k, p) and ``kernel_width`` (); ``modes`` (k, m): ``kernel(points) @
    modes`` are columns whose ridge is the norm of the kernel's function space.

    References: C. Williams and M. Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000.
    """
    chosen = points[order[:N_LANDMARKS]]
    square = square_distances(chosen, chosen)
    apart = square[np.triu_indices(len(chosen), 1)]
    width = KERNEL_WIDTH * np.sqrt(float(np.median(apart)) if apart.size and apart.any() else 1.0)
    arrays = {"landmarks": chosen, "kernel_width": np.array(max(width, 1e-6))}
    values, vectors = np.linalg.eigh(kernel(arrays, chosen))
    kept = values > _SMALLEST_MODE * values[-1]
    return arrays, vectors[:, kept] / np.sqrt(values[kept])


def kernel(arrays: Mapping[str, NDArray[np.float64]], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel between rows and landmarks, shape (n, k)."""
    square = square_distances(points, arrays["landmarks"])
    return np.asarray(np.exp(-0.5 * square / float(arrays["kernel_width"]) ** 2))


def square_distances(a: NDArray[_Float], b: NDArray[_Float]) -> NDArray[_Float]:
    """Squared distances between rows of two tables, shape (n, m), in the dtype of both."""
    square: NDArray[_Float] = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.maximum(square, 0.0, out=square)


@dataclass(frozen=True, eq=False)
class DesignRows:
    """Rows in the form that a head takes."""

    # shape (n, P): design matrix: features per atom, and behind them the atomic fractions where
    # ``composition``
    x: NDArray[np.float64]
    fractions: NDArray[np.float64]  # shape (n, 118): atomic fractions
    composition: bool  # whether the fractions are columns of ``x``

    @property
    def features(self) -> NDArray[np.float64]:
        """The columns of ``x`` that are not the composition."""
        return self.x[:, : -self.fractions.shape[1]] if self.composition else self.x

    def take(self, rows: NDArray[np.generic]) -> DesignRows:
        """The rows chosen by an index or a boolean mask."""
        return DesignRows(self.x[rows], self.fractions[rows], self.composition)


def head_inputs(rows: FeatureRows, *, composition: bool) -> DesignRows:
    """Bring rows that have features into the form that a head takes, with or without composition columns."""
    fractions = atomic_fractions(rows.column("elements").tolist(), rows.column("counts").tolist())
    n_atoms = rows.numbers("n_atoms")
    x = design_matrix(rows.features, n_atoms, fractions, composition=composition)
    return DesignRows(x, fractions, composition)


def energy_over_fixed(rows: FeatureRows) -> NDArray[np.float64]:
    """What the model's energy is over its fixed part (atomic references, pair repulsion), shape (n,), eV/atom.

    It is of one size for all elements, so that absurd energies stand out.
    """
    names = ("energy_model_ev", "fixed_energy_ev", "n_atoms")
    model, fixed, n_atoms = (rows.numbers(name) for name in names)
    return np.asarray((model - fixed) / n_atoms)


def scale_inputs(pops: PopsPrediction, rows: DesignRows) -> ScaleInputs:
    """Pick what the scale sees from the rows and what the POPS head predicts of them."""
    return ScaleInputs(
        support_width=0.5 * (pops.support_upper - pops.support_lower),
        box_std=pops.misspecification_std,
        leverage=pops.leverage,
        epistemic_std=pops.epistemic_std,
        fractions=rows.fractions,
        features=rows.features,
        ellipsoid_std=None if np.isnan(pops.ellipsoid_std).any() else pops.ellipsoid_std,
    )
