"""CHGNet 0.3.0 with its last layer taken off: crystals in, 64 features and uncorrected energies out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from mace_bounds._io import file_sha256
from mace_bounds.backbones.base import FeatureBlock, FeatureKind, tensor_digest
from mace_bounds.backbones.chgnet.corrections import mp2020_correction_ev
from mace_bounds.backbones.chgnet.graph import (
    CUTOFF_A,
    AngleGraph,
    batch_angle_graphs,
    build_angle_graph,
)
from mace_bounds.backbones.chgnet.network import N_ELEMENTS, N_LAYERS, WIDTH, Network
from mace_bounds.backbones.graph import (
    DEFAULT_MEMORY_BYTES,
    MemoryCost,
    ahead,
    batches,
    choose_device,
    filled,
    frozen_sums,
    require_dtype,
)
from mace_bounds.errors import ModelError, StructureError
from mace_bounds.structures import Crystal

if TYPE_CHECKING:
    import torch

NAME = "chgnet"
ALIASES = {"chgnet", "chgnet0.3.0", "chgnet0.3", "chgnetv0.3.0", "chgnetmptrj"}
"""Ways to write it, without blanks, hyphens, underscores and letter case."""

DIGEST = "08efb6ef2c111900343b62d514817130c83784036175b956b1b9adcf8e9ae5bd"
"""Digest of its tensors (:func:`mace_bounds.backbones.tensor_digest`)."""

_FILE = Path("pretrained", "0.3.0", "chgnet_0.3.0_e29f68s314m37.pth.tar")
_SHA256 = "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1"
INSTALL = 'pip install "mace-bounds[chgnet]"'
NOTE = (
    "chgnet is CHGNet 0.3.0, whose energies have the MP2020 corrections of the Materials Project; these are taken off "
    "(pymatgen), so that energy_model_ev is an uncorrected PBE(+U) total energy as VASP gives it"
)
_NOT_IN_TRAINING = {84, 85, 86, 87, 88}  # Po, At, Rn, Fr, Ra: not one structure of MPtrj has them


@dataclass(frozen=True, eq=False, repr=False)
class ChgnetBackbone:
    """CHGNet 0.3.0 without its last layer; make it with ``load_model("chgnet")``.

    The energy is that of ``chgnet.model.CHGNet.predict_structure`` less the MP2020 correction of the structure
    (:func:`mace_bounds.backbones.mp2020_correction_ev`): linear in the 64 values that enter the last layer, summed
    over atoms, with reference energies of atoms and the correction as the part that is fixed.
    """

    network: Network
    dtype: str
    device: str
    memory_bytes: float | None = None

    name: ClassVar[str] = NAME
    digest: ClassVar[str] = DIGEST
    head: ClassVar[str] = "default"
    atomic_numbers: ClassVar[tuple[int, ...]] = tuple(sorted({*range(1, N_ELEMENTS + 1)} - _NOT_IN_TRAINING))
    cutoff_a: ClassVar[float] = CUTOFF_A
    training_compositions: ClassVar[NDArray[np.uint64] | None] = None  # MPtrj's are not in the package
    warnings: ClassVar[tuple[str, ...]] = (NOTE,)
    worker_imports: ClassVar[tuple[str, ...]] = ("torch", "pymatgen.entries.compatibility")

    @property
    def theta0_ev(self) -> NDArray[np.float64]:
        """The last layer's weights on [Σ features, n_atoms], eV, shape (65,)."""
        last = [self.network.weights[f"mlp.layers.7.{part}"].reshape(-1) for part in ("weight", "bias")]
        return np.concatenate([part.double().cpu().numpy() for part in last])

    def columns(self, kind: FeatureKind = "readout") -> list[str]:
        """Names of the feature columns, in order."""
        if kind == "descriptors":
            return [f"layer{k + 1}_atom{i}" for k in range(N_LAYERS) for i in range(WIDTH)]
        return [f"hidden{i}" for i in range(WIDTH)]

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """As :meth:`mace_bounds.backbones.Backbone.extract`; descriptors are the atoms' features after every layer.

        A crystal has no row where atoms are isolated, it has too many angles, or no defined correction.
        """
        reasons: list[str | None] = [None] * len(crystals)
        correction = np.zeros(len(crystals))
        places: list[int] = []

        def graphs() -> Iterator[AngleGraph]:
            for place, crystal in enumerate(crystals):
                try:
                    correction[place] = mp2020_correction_ev(crystal)
                    graph = build_angle_graph(crystal)
                except StructureError as error:
                    reasons[place] = str(error).rstrip(".")
                else:
                    places.append(place)
                    yield graph

        memory_bytes = self.memory_bytes or DEFAULT_MEMORY_BYTES[self.device]
        stream = batches(graphs(), self._cost(), memory_bytes)
        in_place = (([places[i] for i in members], batch) for members, batch in stream)
        rows = filled(
            crystals,
            len(self.columns(kind)),
            ahead(in_place) if self.device == "cuda" else in_place,
            lambda batch: self._run(batch, kind, atoms),
            atoms=atoms,
        )
        return replace(
            rows,
            fixed_energy_ev=rows.fixed_energy_ev - correction,
            energy_ev=rows.energy_ev - correction,
            reasons=tuple(reasons),
        )

    def _cost(self) -> MemoryCost:
        itemsize = {"float32": 4, "float64": 8}[self.dtype]
        return MemoryCost(
            per_atom_bytes=1000 * itemsize,
            per_edge_bytes=250 * itemsize,
            base_bytes=1200 * itemsize * self.network.rows_per_piece,
        )

    def _run(self, graphs: Sequence[AngleGraph], kind: FeatureKind, atoms: bool) -> FeatureBlock:
        """Features and energies of a batch, MP2020 corrections included."""
        import torch

        batch = batch_angle_graphs(graphs, self.device)
        with torch.no_grad():
            hidden, layers = self.network.hidden(batch)
            per_atom = hidden if kind == "readout" else torch.cat(layers, dim=1)
            references = self.network.weights["composition_model.fc.weight"][0]
            fixed, theta0 = references[batch.numbers - 1], torch.from_numpy(self.theta0_ev)
            sums = frozen_sums(hidden, per_atom, fixed, theta0, batch.crystal_of_atom, len(graphs))
        return sums.block(per_atom if atoms else None)

    def __repr__(self) -> str:
        return f"ChgnetBackbone({self.dtype} on {self.device}, {self.digest[:12]})"


def load_chgnet(
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    memory_bytes: float | None = None,
) -> ChgnetBackbone:
    """Load CHGNet 0.3.0 from the installed package ``chgnet``; parameters as of :func:`mace_bounds.load_model`.

    Raises
    ------
    ModelError
        If the package is not installed or holds other weights, or an option does not exist.
    """
    import torch

    require_dtype(dtype)
    device = choose_device(device)
    if head not in (None, ChgnetBackbone.head):
        raise ModelError(f"chgnet has no head {head!r}, only {ChgnetBackbone.head}; leave it away.")
    weights = read_weights()
    return ChgnetBackbone(Network.of(weights, getattr(torch, dtype), device), dtype, device, memory_bytes)


def chgnet_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Digest of weights under their names in the checkpoint: :data:`DIGEST` for those of CHGNet 0.3.0."""
    return tensor_digest(weights, lambda name: weights[name].detach().cpu().numpy())


def is_chgnet(model: object) -> bool:
    """Whether a name is that of CHGNet 0.3.0, however it is written."""
    bare = "".join(c for c in str(model).casefold() if c not in " -_")
    return isinstance(model, (str, Path)) and bare in ALIASES


def find_file() -> Path | None:
    """The file of the weights; None where the package is not installed."""
    spec = find_spec("chgnet")  # nothing of it is imported
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / _FILE
    return path if path.is_file() else None


def require_file() -> Path:
    """The file of the weights; ModelError with what to install where it is not here."""
    path = find_file()
    if path is None:
        raise ModelError(f"CHGNet 0.3.0 comes with the package chgnet, which is not installed: {INSTALL}.")
    return path


def read_weights() -> dict[str, torch.Tensor]:
    """Tensors of the checkpoint by their names, on the CPU.

    The file is compared with a known hash, and read without running code from it.

    Raises
    ------
    ModelError
        If the package is not installed, or its file is another one.
    """
    import torch

    path = require_file()
    if file_sha256(path) != _SHA256:
        raise ModelError(
            f"{path} is not the file of CHGNet 0.3.0 that is known here; install chgnet again (0.4.0 or newer)."
        )
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["model"][
        "state_dict"
    ]
    return state
