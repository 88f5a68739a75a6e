"""The frozen model: crystals in, exact last-layer features and energies out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import file_sha256
from mace_bounds.backbones.base import FeatureBlock, FeatureKind
from mace_bounds.backbones.graph import (
    DEFAULT_MEMORY_BYTES,
    Graph,
    GraphBatch,
    MemoryCost,
    ahead,
    batch_graphs,
    batches,
    build_graph,
    choose_device,
    filled,
    require_dtype,
)
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.backbones.mace import embedded as _embedded
from mace_bounds.backbones.mace import identity
from mace_bounds.backbones.mace.checkpoint import head_names, pickled, unpickled
from mace_bounds.backbones.mace.fast import EDGES_PER_CHUNK, FastForward, Unsupported
from mace_bounds.backbones.mace.files import MPA_0_BYTES, fetch_weights, is_known_name
from mace_bounds.backbones.mace.gradients import MaceEvaluation, evaluate, feature_gradients
from mace_bounds.backbones.mace.split import LastLayer, split_last_layer
from mace_bounds.errors import ModelError, nearest
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    import torch

    from mace_bounds.backbones.gradients import FeatureGradients

CHECK_TOLERANCE_EV_PER_ATOM = 1e-6
MPA_0_PARAMETERS = 9_063_204  # a known fact, never measured by this project


@dataclass(frozen=True, eq=False, repr=False)
class MaceBackbone:
    """A MACE model with its readout taken off; make one with :func:`load_mace`.

    Attributes
    ----------
    name : str
        What the user called it.
    digest : str
        SHA-256 of its tensors (:func:`mace_bounds.backbones.mace.identity.module_digest`).
    module : torch.nn.Module
        The frozen network in ``dtype`` on ``device``.
    split : LastLayer
        The exact split of its energy.
    head : str
        The head in use.
    heads : tuple of str
        All heads of the model.
    atomic_numbers : tuple of int
        Elements it knows.
    cutoff_a : float
        Radius of its neighbour list, Å.
    dtype : str
        Precision of the forward; sums and energies are float64 in either.
    device : str
        ``"cpu"`` or ``"cuda"``.
    training_compositions : ndarray of uint64 or None
        Keys of the compositions its training has seen (:func:`mace_bounds.structures.composition_key`),
        where known.
    warnings : tuple of str
        What is odd about the file.
    fast : FastForward or None
        The re-arranged forward; None where mace's own is used.
    memory_bytes : float or None
        Memory for a batch beside the model; None for the default of the device.
    file_sha256 : str
        SHA-256 of the checkpoint that it was loaded from; empty for an object or a folder.
    """

    name: str
    digest: str
    module: torch.nn.Module
    split: LastLayer
    head: str
    heads: tuple[str, ...]
    atomic_numbers: tuple[int, ...]
    cutoff_a: float
    dtype: str
    device: str
    training_compositions: NDArray[np.uint64] | None = None
    warnings: tuple[str, ...] = ()
    fast: FastForward | None = None
    memory_bytes: float | None = None
    file_sha256: str = ""

    worker_imports: ClassVar[tuple[str, ...]] = ("mace_bounds.backbones.mace.preload",)

    @property
    def layout(self) -> str:
        """Hash of the names and shapes of its parameters; digests of other layouts say nothing of the network."""
        return identity.module_layout(self.module)

    @property
    def theta0_ev(self) -> NDArray[np.float64]:
        """The frozen readout's weights on [Σ readout features, n_atoms], eV, shape (n_features + 1,)."""
        return np.asarray(self.split.theta0.numpy(), dtype=np.float64)

    def columns(self, kind: FeatureKind = "readout") -> list[str]:
        """Names of the feature columns, in order."""
        if kind == "descriptors":
            counts = [s.stop - s.start for s in self.split.scalars]
            return [f"layer{k + 1}_scalar{i}" for k, n in enumerate(counts) for i in range(n)]
        return [
            f"readout{k + 1}_{what}{i}" for k, (what, n) in enumerate(self.split.layers) for i in range(n)
        ]

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """As :meth:`mace_bounds.backbones.Backbone.extract`; descriptors are the invariants of every layer."""
        graphs = (build_graph(crystal, self.cutoff_a) for crystal in crystals)
        memory_bytes = self.memory_bytes or DEFAULT_MEMORY_BYTES[self.device]
        stream = batches(graphs, self._cost(), memory_bytes)
        return filled(
            crystals,
            len(self.columns(kind)),
            ahead(stream) if self.device == "cuda" else stream,
            lambda batch: self._extract_batch(batch, kind, atoms),
            atoms=atoms,
        )

    def evaluate(self, crystal: Crystal, kind: FeatureKind = "readout") -> MaceEvaluation:
        """Run mace's own forward on one crystal and keep what its derivatives need."""
        return evaluate(self, crystal, kind)

    def feature_gradients(
        self, crystals: Iterable[Crystal], kind: FeatureKind = "readout"
    ) -> Iterator[FeatureGradients]:
        """Derivatives of all columns of crystals, in their order, in bounded memory; small crystals go together."""
        return feature_gradients(self, crystals, kind)

    def __repr__(self) -> str:
        return f"MaceBackbone({self.name!r}, head={self.head!r}, {self.dtype} on {self.device}, {self.digest[:12]})"

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: the same numbers there, without the file, and without the check again."""
        return {"pickled": pickled(dict(self.__dict__))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpickled(state["pickled"]))

    def _cost(self) -> MemoryCost:
        if self.fast is None:
            return _mace.mace_cost(self.module)
        return _mace.fast_cost(self.module, EDGES_PER_CHUNK[self.device])

    def _extract_batch(self, graphs: list[Graph], kind: FeatureKind, atoms: bool = False) -> FeatureBlock:
        import torch

        batch = batch_graphs(graphs, self.atomic_numbers, self.device)
        with torch.no_grad(), _mace.default_dtype(getattr(torch, self.dtype)):
            scalars, pair = self._forward(batch)
            sums, per_atom = self.split.sums(scalars, pair, batch, kind)
        return sums.block(per_atom if atoms else None)

    def _forward(self, batch: GraphBatch) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Scalars of each layer and pair repulsion: re-arranged where the model allows it, else by mace."""
        import torch

        if self.fast is not None:
            return self.fast(batch, self.module)
        head = self.heads.index(self.head)
        data = _mace.mace_data(batch, len(self.atomic_numbers), head, getattr(torch, self.dtype))
        node_feats = _mace.forward(self.module, data)["node_feats"]
        return self.split.select(node_feats), _mace.pair_energies(self.module, data)


def load_mace(
    model: str | Path | torch.nn.Module,
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    memory_bytes: float | None = None,
) -> MaceBackbone:
    """Load a model, split its readout off, and check the split on a small cell.

    Parameters are those of :func:`mace_bounds.backbones.load_model`.

    Raises
    ------
    ModelError
        If it cannot be found, loaded or split, or the split misses the model's own energy by more
        than 1e-6 eV/atom.
    """
    import torch

    require_dtype(dtype)
    device = choose_device(device)
    opened = _open(model)
    name, module, notes = opened.name, opened.module, list(opened.notes)
    module = module.to("cpu", torch.float64).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    heads = head_names(module)
    chosen = _choose_head(heads, head)
    split = split_last_layer(module, heads.index(chosen))
    numbers = tuple(int(z) for z in module.atomic_numbers)
    frozen = MaceBackbone(
        name=name,
        digest=identity.module_digest(module),
        module=module,
        split=split,
        head=chosen,
        heads=heads,
        atomic_numbers=numbers,
        cutoff_a=float(module.r_max),
        dtype="float64",
        device="cpu",
        training_compositions=opened.training_compositions,
        warnings=tuple(notes),
        file_sha256=opened.file_sha256,
    )
    _check_split(frozen)
    precision = getattr(torch, dtype)
    try:
        _check_split(replace(frozen, fast=FastForward(module, torch.float64, "cpu")))
        fast = FastForward(module, precision, device)
    except (Unsupported, ModelError) as reason:
        fast = None
        notes.append(f"mace's own forward is used, which is slower: this model has {reason}")
    module.to(device, precision)
    if isinstance(model, (str, Path)):
        identity.remember(model, frozen.digest)
    return replace(
        frozen, dtype=dtype, device=device, fast=fast, memory_bytes=memory_bytes, warnings=tuple(notes)
    )


def _choose_head(heads: tuple[str, ...], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in heads:
            raise ModelError(
                f"the model has no head {wanted!r}, only {', '.join(heads)}"
                f"{nearest(wanted, heads) or '; choose one of these.'}"
            )
        return wanted
    if len(heads) == 1:
        return heads[0]
    for name in heads:
        if name.lower() == "default":
            return name
    raise ModelError(f"the model has several heads, {', '.join(heads)}; name one of them (--head-name).")


@dataclass(frozen=True, eq=False)
class _Opened:
    """What was found under a name: the module, and what is known of it beside."""

    name: str
    module: Any
    notes: tuple[str, ...] = ()
    training_compositions: NDArray[np.uint64] | None = None
    file_sha256: str = ""


def _open(model: str | Path | torch.nn.Module) -> _Opened:
    """Open whatever the user means by ``model``."""
    if not isinstance(model, (str, Path)):
        with _mace.quiet():  # a copy, as what follows would change the user's own
            return _Opened("object", copy.deepcopy(model))
    path = _embedded.MINI_FOLDER if str(model) == _embedded.MINI else Path(model)
    named = is_known_name(model)
    if path.is_dir() and not named:
        embedded = _embedded.load(path)
        return _Opened(path.name, embedded.module, (), embedded.training_compositions)
    name, path = (str(model), fetch_weights(model).path) if named or not path.is_file() else (path.name, path)
    module = _mace.load_checkpoint(path, trusted=named)
    notes = _mpa_0_notes(path, module) if named and name == _mace.MPA_0 else ()
    return _Opened(name, module, tuple(notes), file_sha256=file_sha256(path))


def _mpa_0_notes(path: Path, module: torch.nn.Module) -> list[str]:
    parameters, size = sum(p.numel() for p in module.parameters()), path.stat().st_size
    notes = []
    if parameters != MPA_0_PARAMETERS:
        notes.append(f"{parameters:,} parameters where MACE-MPA-0 has {MPA_0_PARAMETERS:,}")
    if size != MPA_0_BYTES:
        notes.append(f"{size:,} bytes where the file of MACE-MPA-0 has {MPA_0_BYTES:,}")
    return notes


def _small_cells(numbers: Sequence[int]) -> Iterator[Crystal]:
    """Two distorted two-atom cells of elements from both ends of the model's list."""
    for a, b in ((numbers[0], numbers[-1]), (numbers[len(numbers) // 2], numbers[len(numbers) // 3])):
        positions = np.array([[0.0, 0.0, 0.0], [1.7, 1.4, 1.6]])
        yield Crystal(
            np.array([a, b]), positions, np.array([[3.4, 0.1, 0.0], [0.0, 3.3, 0.2], [0.1, 0.0, 3.6]])
        )


def _check_split(frozen: MaceBackbone) -> None:
    """Compare θ0·φ + fixed with mace's own energy in float64."""
    import torch

    graphs = [build_graph(c, frozen.cutoff_a) for c in _small_cells(frozen.atomic_numbers)]
    batch, head = batch_graphs(graphs, frozen.atomic_numbers), frozen.heads.index(frozen.head)
    data = _mace.mace_data(batch, len(frozen.atomic_numbers), head, torch.float64)
    wanted = _mace.forward(frozen.module, data)["energy"].numpy()
    got = frozen._extract_batch(graphs, "readout").energy_ev
    error = float(np.abs(got - wanted).max()) / 2
    if not error <= CHECK_TOLERANCE_EV_PER_ATOM:
        raise ModelError(
            f"the features of {frozen.name} miss its energy by {error:.3g} eV/atom, more than "
            f"{CHECK_TOLERANCE_EV_PER_ATOM:g}; this model cannot be used."
        )
