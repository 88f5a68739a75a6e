"""Something to start with: crystals from textbooks, and real all-electron DFT energies of strained elements.

ASE ships ``ase.collections.dcdft``: 71 elemental crystals with the equilibrium volume, bulk modulus and its
derivative that WIEN2k (all-electron, PBE) gave for the Delta test of DFT codes. They define the energy of
each crystal as a function of its volume, up to a constant. A model's total energy has another zero, so the
constant is taken from the model itself:

    label(V) = E_model(V0) + E_WIEN2k(V) - E_WIEN2k(V0)

The residual label - E_model is therefore the model's error in the *strain energy*, V0 to V, zero at V0 by
construction. It is no error of total or formation energies, and says nothing of these.

A model may have been trained on energies of some of these elements (``mini`` on PBE ones), but not on these labels. A
head for them is therefore fitted with ``include_training``: elements that it has not used measure it fairly, although
the network has seen some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.structures import Crystal, Record

if TYPE_CHECKING:
    from mace_bounds.backbones import Backbone

__all__ = [
    "LABEL",
    "SCALES",
    "EquationOfState",
    "crystal_at",
    "equation_of_state",
    "example_files",
    "example_store",
    "strain_records",
    "write_extxyz",
]

SCALES = (0.94, 0.95, 0.96, 1.04, 1.05, 1.06)
"""Volumes in units of V0: the outer part of the range that the Delta test uses. Nearer to V0 every model is right,
because its own energy there is the zero of the labels; such rows would only flatter the coverage."""

LABEL = "E_model(V0) + E_WIEN2k(V) - E_WIEN2k(V0)"
_SOURCE = "dcdft"


@dataclass(frozen=True)
class EquationOfState:
    """A third-order Birch-Murnaghan equation of state, per atom.

    References
    ----------
    F. Birch, Phys. Rev. 71, 809 (1947); as used by K. Lejaeghere et al., Crit. Rev. Solid State 39, 1 (2014).
    """

    volume_a3_per_atom: float  # equilibrium volume V0, Å³/atom
    bulk_modulus_gpa: float  # B0, GPa
    bulk_modulus_derivative: float  # B1 = dB/dP at V0

    def energy_ev_per_atom(self, scale: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """E(V) - E(V0), eV/atom, at V = ``scale`` · V0."""
        from ase.units import GPa

        strain = np.asarray(scale, dtype=np.float64) ** (-2.0 / 3.0) - 1.0  # twice the Eulerian strain
        modulus_ev_a3 = self.bulk_modulus_gpa * GPa
        third_order = 1.0 + 0.5 * (self.bulk_modulus_derivative - 4.0) * strain
        return np.asarray(9.0 / 8.0 * modulus_ev_a3 * self.volume_a3_per_atom * strain**2 * third_order)


def equation_of_state(symbol: str) -> EquationOfState:
    """Return the WIEN2k (PBE) equation of state of an element.

    Parameters
    ----------
    symbol : str
        One of ``ase.collections.dcdft.names``, H to Rn.
    """
    from ase.collections import dcdft

    values = dcdft.data[symbol]
    return EquationOfState(values["wien2k_volume"], values["wien2k_B"], values["wien2k_Bp"])


def crystal_at(symbol: str, scale: float = 1.0) -> Crystal:
    """Return an element's ground-state crystal, scaled to the volume ``scale`` · V0.

    Shape and fractional positions are those of the Delta test at every volume; magnetic order is ignored.
    """
    from ase.collections import dcdft

    atoms = dcdft[symbol]
    wanted = scale * equation_of_state(symbol).volume_a3_per_atom * len(atoms)
    factor = (wanted / atoms.get_volume()) ** (1.0 / 3.0)
    return Crystal(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.asarray(atoms.positions * factor, dtype=np.float64),
        cell=np.asarray(atoms.cell.array * factor, dtype=np.float64),
    )


def strain_records(
    model: Backbone, symbols: Sequence[str] | None = None, scales: Sequence[float] = SCALES
) -> list[Record]:
    """Strained elemental crystals, labelled with WIEN2k's strain energy on top of the model's energy at V0.

    Parameters
    ----------
    model : Backbone
        The model whose error is wanted: its energy at V0 is the zero of the labels, so they belong to this
        model alone.
    symbols : sequence of str, optional
        Elements; by default those of the 71 that the model knows.
    scales : sequence of float
        Volumes in units of V0.

    Returns
    -------
    list of Record
        Element by element, volume by volume; ids are like ``"Si-0.94"``.
    """
    from ase.collections import dcdft
    from ase.data import atomic_numbers

    known = set(model.atomic_numbers)
    chosen = [s for s in dcdft.names if atomic_numbers[s] in known] if symbols is None else list(symbols)
    zeros_ev = model.extract([crystal_at(symbol) for symbol in chosen]).energy_ev
    records = []
    for symbol, zero_ev in zip(chosen, zeros_ev, strict=True):
        strain_ev_per_atom = equation_of_state(symbol).energy_ev_per_atom(np.asarray(scales))
        for scale, energy in zip(scales, strain_ev_per_atom, strict=True):
            crystal = crystal_at(symbol, scale)
            label_ev = float(zero_ev + len(crystal.numbers) * energy)
            records.append(
                Record(f"{symbol}-{scale:.2f}", _SOURCE, crystal, energy_ev=label_ev, label_kind=LABEL)
            )
    return records


def write_extxyz(records: Iterable[Record], path: str | Path, model: Backbone) -> int:
    """Write labelled records as extended XYZ; every frame says what its label is and whose zero it has.

    Returns
    -------
    int
        The number of frames.
    """
    from ase.io import write

    frames = []
    for record in records:
        if record.crystal is None:
            continue
        atoms = record.crystal.to_atoms()
        atoms.info = {
            "id": record.id,
            "source": record.source,
            "REF_energy": record.energy_ev,
            "label": str(record.label_kind),
            "label_zero": f"{model.name} {model.digest[:12]}",
        }
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return len(frames)


_FOLDER = Path(__file__).resolve().parent / "data" / "examples"


def example_files(*names: str) -> list[Path]:
    """Return the CIF files that ship with the package.

    Parameters
    ----------
    *names : str
        Names without the suffix: ``"NaCl"``, ``"TiO2"``; all crystals by default. ``"broken"`` holds two
        atoms on nearly the same place, to see how such a file is refused; it comes only by name.

    Returns
    -------
    list of Path
        In the order of ``names``, or sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such example.
    """
    if not names:
        return sorted(path for path in _FOLDER.glob("*.cif") if path.stem != "broken")
    paths = [_FOLDER / f"{name}.cif" for name in names]
    for path in paths:
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.cif")))
            raise FileNotFoundError(f"there is no example {path.stem!r}; choose one of {known}.")
    return paths


def example_store() -> Path:
    """Return the folder of a feature store that ships with the package: errors of the real MACE-MPA-0.

    782 WBM crystals: ids, formulas, features of ``mini``, DFT energies, and in place of the energies of ``mini``
    those that were published for MACE-MPA-0 after its own relaxation of each crystal. There are no structures in
    it. Heads can be fitted to it and audited without any model.

    Notes
    -----
    Structures and DFT energies: WBM, as in materialsvirtuallab/matcalc (BSD-3-Clause); energies of the model: as
    published by Matbench Discovery (MIT).
    """
    return _FOLDER.parent / "stores" / "mace-mpa-0-published"
