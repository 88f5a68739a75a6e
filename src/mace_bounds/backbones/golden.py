"""What a model gives for a few small cells: the same network gives the same, whatever its file and its tensors are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mace_bounds.structures import Crystal
from mace_bounds.threads import one_thread

if TYPE_CHECKING:
    from mace_bounds.backbones.base import Backbone, FeatureKind

TOLERANCE = {"float64": 1e-5, "float32": 5e-4}
"""Largest difference of one model from another that are the same network, eV/atom; of precisions the larger one.

With ``mini`` float32 and float64 differ by 2e-5 eV/atom.
"""
FEW = 4
"""So many cells are enough to see that a network of known tensors is built in another way, and take 0.02 s."""
_RELATIVE_TOLERANCE = 1e-6  # beside it: energies of free atoms may be large, and have been rounded to float32
_GOLDEN_RATIO = 0.6180339887498949  # the fractional parts of its multiples are spread evenly
_DIGITS = 9  # of a value that is kept: the rest is round-off


@dataclass(frozen=True)
class Golden:
    """Values of a model on :func:`golden_cells`; a store and a head keep those of their model.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers of the elements that the model knows, of which the cells are made.
    dtype : {"float32", "float64"}
        Precision of the forward.
    layout : str
        Hash of the names and shapes of the model's tensors; empty where the model does not tell it.
    energies_ev_per_atom : tuple of float
        The model's energy of each cell, or of the first ones; 0 where the model gives no number for its elements.
    features_per_atom : tuple of float
        Of each cell the sum of its features times the cosine of their place: one number that each of them, and their
        order, has a part in.
    """

    elements: tuple[int, ...]
    dtype: str
    layout: str
    energies_ev_per_atom: tuple[float, ...]
    features_per_atom: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be compared (ValueError)."""
        n, n_features = len(self.energies_ev_per_atom), len(self.features_per_atom)
        if self.dtype not in TOLERANCE or not set(self.elements) <= set(range(1, 119)):
            raise ValueError("golden energies of no model")
        if not 0 < n == n_features <= len(_pairs(self.elements)):
            raise ValueError("golden energies of other cells")
        if not np.isfinite([*self.energies_ev_per_atom, *self.features_per_atom]).all():
            raise ValueError("golden energies that are not finite")

    def difference(self, other: Golden) -> str:
        """In which cell two models differ the most and by how much, as a clause; empty where they agree.

        Compared are the cells that both have.
        """
        if self.elements != other.elements:
            return f"it knows {len(other.elements)} elements and not the same {len(self.elements)}"
        tolerance = max(TOLERANCE[self.dtype], TOLERANCE[other.dtype])
        n = min(len(self.energies_ev_per_atom), len(other.energies_ev_per_atom))
        for name, unit, ours, theirs in (
            ("energies", " eV/atom", self.energies_ev_per_atom, other.energies_ev_per_atom),
            ("features", "", self.features_per_atom, other.features_per_atom),
        ):
            apart = np.abs(np.subtract(ours[:n], theirs[:n]))
            excess = apart - tolerance - _RELATIVE_TOLERANCE * np.abs(ours[:n])
            if excess.max() > 0:
                worst = int(excess.argmax())
                a, b = (chemical_symbols[z] for z in _pairs(self.elements)[worst])
                return (
                    f"of {n} built-in cells its {name} differ by up to {apart[worst]:.2g}{unit} "
                    f"({a}-{b}: {theirs[worst]:.6g}, not {ours[worst]:.6g})"
                )
        return ""


def golden_of(model: Backbone, kind: FeatureKind = "readout", n_cells: int | None = None) -> Golden | None:
    """Compute the golden values of a model, of all cells or of the first ones.

    None where it fails on these cells, whatever the reason.
    """
    elements = tuple(sorted(int(z) for z in model.atomic_numbers))
    cells = golden_cells(elements)[:n_cells]
    try:
        with one_thread():
            block = model.extract(cells, kind)
        if not np.isfinite(block.energy_ev).any():
            return None
        features = block.features @ np.cos(np.arange(block.features.shape[1]))
        values = [_rounded(total, cells) for total in (block.energy_ev, features)]
        return Golden(elements, model.dtype, getattr(model, "layout", ""), *values)
    except Exception:  # a model may raise what it likes; where all structures fail, the run says so
        return None


def _rounded(totals: Sequence[float] | np.ndarray, cells: Sequence[Crystal]) -> tuple[float, ...]:
    per_atom = np.asarray(totals, dtype=float) / [len(cell.numbers) for cell in cells]
    per_atom = np.where(np.isfinite(per_atom), per_atom, 0.0)  # CHGNet knows He, Ne and Ar by name only
    return tuple(float(f"{value:.{_DIGITS}g}") for value in per_atom)


def golden_cells(elements: Sequence[int]) -> list[Crystal]:
    """Distorted cells of two atoms, about a bond apart, in which every element is there once or twice.

    The lightest stands with the heaviest, and so on inwards; the first cells are from all over the list. No distance in
    a cell is that of another by symmetry.
    """
    cells = []
    for a, b in _pairs(elements):
        edge_a = 1.3 * (covalent_radii[a] + covalent_radii[b])  # 1.1 bonds along half of the diagonal
        cell = edge_a * np.array([[1.0, 0.03, 0.0], [0.0, 0.98, 0.05], [0.04, 0.0, 1.05]])
        cells.append(Crystal(np.array([a, b]), np.array([[0.0, 0.0, 0.0], [0.5, 0.47, 0.54]]) @ cell, cell))
    return cells


def _pairs(elements: Sequence[int]) -> list[tuple[int, int]]:
    ordered = sorted(elements)
    half = (len(ordered) + 1) // 2
    pairs = list(zip(ordered[:half], ordered[::-1], strict=False))
    return [pairs[i] for i in sorted(range(half), key=lambda i: i * _GOLDEN_RATIO % 1)]
