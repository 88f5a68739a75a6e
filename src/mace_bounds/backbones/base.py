"""What every backbone is: a frozen network whose energy is linear in the features of its last layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mace_bounds.structures import Crystal

FeatureKind = Literal["readout", "descriptors"]


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Features and energies of some crystals, in their order."""

    # shape (n_crystals, n_features): sums over atoms; without the count of atoms
    features: NDArray[np.float64]
    # shape (n_crystals,): the part of the energy that no readout weight changes (isolated atoms, pair
    # repulsion)
    fixed_energy_ev: NDArray[np.float64]
    # shape (n_crystals,): the model's total energy, θ0 · [features, n_atoms] + fixed_energy_ev
    energy_ev: NDArray[np.float64]
    # shape (n_atoms, n_features): features of every single atom, crystal after crystal, where they were asked
    # for
    atoms: NDArray[np.float32] | None = None
    # why a crystal has no row (NaN stands there), None where it has; nothing where all have
    reasons: tuple[str | None, ...] = ()


@runtime_checkable
class Backbone(Protocol):
    """A frozen network with its readout taken off.

    Whatever has these members can be used wherever a model is named: :func:`mace_bounds.extract`,
    :class:`mace_bounds.BoundsPredictor`, :func:`mace_bounds.audit`. Its energy must be
    ``features @ theta0_ev[:-1] + n_atoms * theta0_ev[-1] + fixed_energy_ev``, exactly.
    ``docs/dev/add-a-backbone.md`` makes one in fifty lines.

    Worker processes get it by :mod:`pickle`. One whose process has to import much first may name modules in a tuple
    ``worker_imports``: the server that worker processes are forked from imports them once. One that was read from a
    file which can run code has the hash of its bytes in ``file_sha256``, so that a head can ask for this file. One that
    other programs convert to other tensors has a hash of their names and shapes in ``layout``: a head takes a model of
    another layout that gives the same numbers (:mod:`mace_bounds.backbones.golden`).
    Derivatives of features are no part of this, as bounds of energies do not need them: a backbone that has them is a
    :class:`~mace_bounds.backbones.DifferentiableBackbone`.
    """

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its tensors, hex: the same however the file was saved. Stores, heads and tables carry it."""
        ...

    @property
    def head(self) -> str:
        """Which of its readouts is used, where it has several."""
        ...

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements it knows."""
        ...

    @property
    def cutoff_a(self) -> float:
        """Radius of its neighbour list, Å."""
        ...

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``: precision of the forward; sums and energies are float64."""
        ...

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        ...

    @property
    def training_compositions(self) -> NDArray[np.uint64] | None:
        """Sorted keys of its training's compositions (:func:`mace_bounds.structures.composition_key`)."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about it."""
        ...

    @property
    def theta0_ev(self) -> NDArray[np.float64]:
        """Weights of the frozen readout on [Σ readout features, n_atoms], eV, shape (n_features + 1,)."""
        ...

    def columns(self, kind: FeatureKind = "readout") -> list[str]:
        """Names of the feature columns, in order."""
        ...

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """Run the network on crystals, in batches that fill the memory given to them.

        Parameters
        ----------
        crystals : sequence of Crystal
            Checked structures whose elements the model knows.
        kind : {"readout", "descriptors"}
            The features in which the energy is linear, or those of every layer.
        atoms : bool
            Give the features of single atoms beside their sums.

        Returns
        -------
        FeatureBlock
            Rows in the order of ``crystals``; ``reasons`` where one has no row.
        """
        ...


@dataclass(frozen=True)
class ModelInfo:
    """A model that :func:`mace_bounds.backbones.load_model` knows by name."""

    name: str
    here: bool  # whether its weights are on this machine
    description: str
    install: str = ""  # what brings them here; empty where they are fetched by themselves


@dataclass(frozen=True)
class WeightsFile:
    """The file of a model's weights."""

    model: str  # what the user called it: a name, or a path
    path: Path  # where the file is, or where its family will put it
    here: bool  # whether it is there
    url: str | None  # where it is fetched from; None for what is never fetched
    size_bytes: int | None  # of the file; where it is not here, what is known of it


class Family(Protocol):
    """What a folder of :mod:`mace_bounds.backbones` offers: models of one kind, by name, path or object."""

    def knows(self, model: object) -> bool:
        """Whether a name, path or object is a model of this family; cheap, without importing a framework."""
        ...

    def load(
        self, model: Any, *, head: str | None, dtype: str, device: str, memory_bytes: float | None
    ) -> Backbone:
        """Load it; as :func:`mace_bounds.backbones.load_model`."""
        ...

    def list_models(self) -> list[ModelInfo]:
        """Models that can be named."""
        ...

    def find_weights(self, model: str | Path) -> WeightsFile:
        """Where its weights are; as :func:`mace_bounds.backbones.find_weights`."""
        ...

    def fetch_weights(self, model: str | Path) -> WeightsFile:
        """Its weights, downloaded where they are not here."""
        ...

    def digest_of(self, model: str | Path) -> str | None:
        """Its digest where that is known without loading it, else None."""
        ...

    def training_compositions(self, model: str | Path, digest: str) -> NDArray[np.uint64] | None:
        """Keys of the compositions of its training, where known; ModelError if its digest is another."""
        ...


def tensor_digest(names: Iterable[str], tensor: Callable[[str], Any]) -> str:
    """SHA-256 of named tensors, hex.

    For every name in sorted order (by code point) the hash takes the name in UTF-8, a zero byte, the shape as decimal
    numbers with commas between them, a zero byte, and the values in C order as little-endian float32. Precision,
    device, format and order in the file have no part in it: a model in float64, its copy in float32 and that copy cast
    back have one digest.

    Parameters
    ----------
    names : iterable of str
    tensor : callable
        Gives the array of a name; called once for each, so that one copy is in memory at a time.
    """
    sha = hashlib.sha256()
    for name in sorted(names):
        with np.errstate(over="ignore"):  # infinity is a value like others here
            values = np.asarray(tensor(name)).astype("<f4", order="C")
        sha.update(f"{name}\0{','.join(map(str, values.shape))}\0".encode())
        sha.update(values.data)
    return sha.hexdigest()
