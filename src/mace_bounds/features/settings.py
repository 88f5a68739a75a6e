"""How features are extracted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from mace_bounds.backbones import Backbone, load_model
from mace_bounds.errors import StoreError
from mace_bounds.settings import check_settings, setting
from mace_bounds.structures import MOST_ATOMS, Record, Source, read


def parse_memory(text: str) -> float:
    """``"512"``, ``"512MB"`` or ``"1.5 GB"`` to bytes; without a unit it is MB. ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = float(match[1]) * 1024.0 ** ("kmgt".index(match[2] or "m") + 1) if match else 0.0
    if not 2**20 <= size <= 2**50:
        raise ValueError(f"{text!r} is no size from 1MB to 1024TB; write 512MB or 2GB, for example.")
    return size


def parse_part(text: str) -> tuple[int, int]:
    """``"2/4"`` to (2, 4). ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise ValueError(f"{text!r} is not I/N with I from 1 to N and N below a million.")
    return part


@dataclass(frozen=True)
class ExtractSettings:
    """How structures are read and their features extracted; the command line makes its options from the fields.

    Attributes
    ----------
    energy_key : str or None
        Where labels are kept; None tries the usual keys.
    max_atoms : int
        Larger cells get a reason instead of features.
    device, dtype : str
        Where the model runs, and the precision of its forward; sums and energies are float64 in either.
    memory_bytes : float or None
        Memory for a batch beside the model; None for 256 MB on a CPU, 8 GB on CUDA. Results depend on it by
        round-off only.
    kind : {"readout", "descriptors"}
        The features in which the energy is linear, or the invariants of every layer.
    atoms : bool
        Keep the features of single atoms (float32), from which heads learn to grade atoms.
    symmetry : bool
        Keep the space groups of labelled structures, by which an audit tells its coverage apart.
    shard_rows : int
        Records per shard of the store.
    workers : int or None
        Processes on this machine; None for one on each usable core. With 1, and on CUDA, there is only this one.
        Scripts that ask for more must start under ``if __name__ == "__main__"``, as for every use of
        :mod:`multiprocessing`.
    scheduler : str or None
        Address of a Dask scheduler whose workers see the same folder; instead of processes.
    part : (int, int) or None
        ``(i, n)`` fills every n-th shard only, from the i-th on (1 to n).
    """

    energy_key: str | None = setting(
        None, "Where labels are kept: a key of extxyz, ase or entries.", metavar="KEY", shown="the usual ones"
    )
    max_atoms: int = setting(500, "Larger cells are refused with a reason.", minimum=1, maximum=MOST_ATOMS)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where the model runs.")
    dtype: Literal["float32", "float64"] = setting("float32", "Precision of the model's forward.")
    memory_bytes: float | None = setting(
        None,
        "Memory for a batch in every process, beside the model: MB, or with a unit (2GB). Results depend on it by "
        "round-off only.",
        metavar="SIZE",
        shown="256MB, on CUDA 8GB",
        parser=parse_memory,
        option="--memory",
    )
    kind: Literal["readout", "descriptors"] = setting(
        "readout", "readout: the energy is linear in them; descriptors: all invariants."
    )
    atoms: bool = setting(
        False, "Keep the features of every atom too, so that a head from this store grades atoms."
    )
    symmetry: bool = setting(
        False, "Keep the space groups of labelled structures too, so that an audit tells them apart."
    )
    shard_rows: int = setting(256, "Structures per shard of the store.", minimum=1, maximum=1_000_000)
    workers: int | None = setting(
        1,
        "Worker processes on this machine (ignored on CUDA).",
        minimum=1,
        maximum=1024,
        metavar="N",
        shown="one for each usable core",
    )
    scheduler: str | None = setting(
        None,
        "A Dask scheduler (tcp://HOST:8786) whose workers see the same folders; instead of processes here.",
        metavar="ADDRESS",
    )
    part: tuple[int, int] | None = setting(
        None,
        "Only the I-th of N parts, for arrays of jobs; mace-bounds merge joins them.",
        metavar="I/N",
        parser=parse_part,
        option="--shard",
    )

    def __post_init__(self) -> None:
        check_settings(self, StoreError)

    def decisive(self) -> dict[str, Any]:
        """Settings that decide what a build's store holds; not where and in how much memory it is computed."""
        return {name: getattr(self, name) for name in (*READING_FIELDS, "shard_rows") if name not in _MACHINE}

    def load(self, model: Any, head: str | None = None) -> Backbone:
        """Load a model as :func:`mace_bounds.load_model` does: on this device, in this precision and memory."""
        return load_model(
            model, head=head, dtype=self.dtype, device=self.device, memory_bytes=self.memory_bytes
        )

    def read(self, source: Source, backbone: Backbone | None = None) -> Iterator[Record]:
        """Read a source as :func:`mace_bounds.read` does, with these labels and limits, for a model's elements."""
        elements = None if backbone is None else frozenset(backbone.atomic_numbers)
        return read(source, energy_key=self.energy_key, max_atoms=self.max_atoms, elements=elements)


READING_FIELDS = ("energy_key", "max_atoms", "device", "dtype", "memory_bytes")
"""Of :class:`ExtractSettings`, for those who bound structures at once, without a store."""

STORING_FIELDS = tuple(f.name for f in fields(ExtractSettings) if f.name not in READING_FIELDS)
"""The others: what a feature store keeps, and who fills it."""

_MACHINE = ("device", "memory_bytes")
