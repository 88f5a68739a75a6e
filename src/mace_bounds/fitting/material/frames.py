"""Frames of one chemistry with their labels: energies, forces and stress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import LabelError, SourceError
from mace_bounds.structures import Record, read

if TYPE_CHECKING:
    from ase import Atoms

    Array = NDArray[np.float64]

FAMILY_KEYS = ("family", "config_type", "source")
"""Where the family of a frame is looked for among its ``info``."""
_ENERGY = ("REF_energy", "dft_energy", "energy")
_FORCES = ("REF_forces", "dft_forces", "forces", "force")
_STRESS = ("REF_stress", "dft_stress", "stress")
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class Frame:
    """One labelled structure."""

    record: Record  # its source is the family of the frame
    forces_ev_per_a: Array | None = None  # shape (n_atoms, 3)
    stress_ev_per_a3: Array | None = None  # shape (3, 3), positive under tension as in ase

    @property
    def n_atoms(self) -> int:
        """Atoms of the cell."""
        return 0 if self.record.crystal is None else len(self.record.crystal.numbers)


def frames_of(atoms: Iterable[Atoms], *, shift_ev_per_atom: float = 0.0) -> list[Frame]:
    """Frames from ase objects with energies, and forces and stress where they have them.

    Parameters
    ----------
    atoms : iterable of Atoms
        Labels are ``REF_energy``, ``dft_energy`` or ``energy`` (eV), forces (eV/Å) and stress (eV/Å³, ase's sign)
        likewise, or the results of a calculator; the family is ``info["family"]``, ``["config_type"]`` or
        ``["source"]``.
    shift_ev_per_atom : float
        Added to every energy, so that it is relative to another reference.

    Raises
    ------
    LabelError
        If a frame has no energy, or labels that are not numbers of the right shape.
    """
    frames = []
    for place, one in enumerate(atoms):
        given = {**one.info, **one.arrays, **(one.calc.results if one.calc is not None else {})}
        energy, forces, stress = (_label(given, names) for names in (_ENERGY, _FORCES, _STRESS))
        name = str(one.info.get("id", f"frame {place}"))
        stress = _tensor(stress)
        wrong = [
            what
            for what, label, shape in (
                ("energy", energy, ()),
                ("forces", forces, (len(one), 3)),
                ("stress", stress, (3, 3)),
            )
            if label is not None and (label.shape != shape or not np.isfinite(label).all())
        ]
        if energy is None or wrong:
            raise LabelError(
                f"{name} has {'no energy' if energy is None else f'an unusable label ({wrong[0]})'}; a material head "
                f"needs an energy for every frame ({', '.join(_ENERGY)}), and forces and stress where there are some."
            )
        family = next((str(one.info[key]) for key in FAMILY_KEYS if one.info.get(key)), "")
        (record,) = read([one])
        label = float(energy) + shift_ev_per_atom * len(one)
        record = replace(
            record, id=name, source=family, energy_ev=label, label_kind="energy", label_reason=None
        )
        if record.reason is not None:
            raise LabelError(f"{name} cannot be used: {record.reason}")
        frames.append(Frame(record, forces, stress))
    return frames


def read_frames(paths: str | Path | Sequence[str | Path], *, shift_ev_per_atom: float = 0.0) -> list[Frame]:
    """Frames of extended XYZ files (``.extxyz``, ``.xyz``, also ``.gz``); see :func:`frames_of`.

    Raises
    ------
    SourceError
        If a file is not there, or is no extended XYZ.
    LabelError
        If a frame has no energy.
    """
    import gzip
    import io

    from ase.io import read as ase_read

    found: list[Atoms] = []
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
            found += ase_read(io.StringIO(text), ":", format="extxyz")
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            # ase's own error is an OSError without a number
            if isinstance(error, OSError) and error.strerror is not None:
                raise SourceError(f"{path} cannot be read ({error.strerror}); check the path.") from None
            raise SourceError(
                f"{path} is no extended XYZ with energies, forces and stress ({type(error).__name__}); write it with "
                "ase.io.write(PATH, frames, format='extxyz')."
            ) from None
    return frames_of(found, shift_ev_per_atom=shift_ev_per_atom)


def _label(given: Mapping[str, Any], names: Sequence[str]) -> Array | None:
    for name in names:
        if name in given and given[name] is not None:
            try:
                return np.asarray(given[name], dtype=np.float64)
            except (TypeError, ValueError):
                return np.full(1, np.nan)
    return None


def _tensor(stress: Array | None) -> Array | None:
    """A stress of 6 components in ase's order, or of 9, as a tensor."""
    if stress is None or stress.shape == (3, 3):
        return stress
    if stress.shape == (9,):
        return stress.reshape(3, 3)
    if stress.shape != (6,):
        return stress
    tensor = np.zeros((3, 3))
    for value, (i, j) in zip(stress, VOIGT, strict=True):
        tensor[i, j] = tensor[j, i] = value
    return tensor


def chosen_frames(frames: Sequence[Frame], atoms_per_family: int) -> list[int]:
    """Frames whose forces and stress are used: so many atoms of every family, by the hashes of their ids."""
    order = sorted(range(len(frames)), key=lambda k: _hash(f"derivatives:{frames[k].record.id}"))
    room: dict[str, int] = {}
    chosen = []
    for k in order:
        frame = frames[k]
        left = room.setdefault(frame.record.source, atoms_per_family)
        if left > 0 and (frame.forces_ev_per_a is not None or frame.stress_ev_per_a3 is not None):
            room[frame.record.source] = left - frame.n_atoms
            chosen.append(k)
    return sorted(chosen)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
