"""Frames for training ``mini``: reading, splitting by composition, atomic energies, likeness of elements."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from pymatgen.core import Composition, Element, Structure

ATOMIC_NUMBERS = [*range(1, 84), *range(89, 95)]  # the 89 elements of MACE-MPA-0
SPLIT_SALT = "mace-bounds/mini"
MAX_ATOMS, MAX_FORCE_EV_A, MAX_STRESS_GPA, MAX_SCAN_EV_PER_ATOM = 120, 25.0, 100.0, 2.0
EV_A3_IN_GPA = 160.21766208


@dataclass
class Frame:
    """One labelled structure; stress is None where it is absent or unphysical."""

    id: str
    source: str
    atoms: Atoms
    formula: str
    energy_ev: float
    forces_ev_a: np.ndarray | None = None
    stress_ev_a3: np.ndarray | None = None


def split_fraction(formula: str) -> float:
    """Deterministic position of a composition in [0, 1]; 0 for pure elements, which anchor everything else.

    The first version of ``mini`` counted from the other end: the compositions of these sources on which its head
    was developed train this version, and those kept from this version had (but for a few that both kept)
    no part in any choice of calibration.  WBM, on which neither version is trained, had.
    """
    if Composition(formula).is_element:
        return 0.0
    digest = hashlib.sha256(f"{SPLIT_SALT}:{formula}".encode()).digest()
    return 1.0 - int.from_bytes(digest[:8], "big") / 2**64


def read_text_frames(path: Path) -> list[Atoms]:
    """All frames of a compressed extxyz file (ASE seeks: on the compressed handle it takes minutes)."""
    with gzip.open(path, "rt") as handle:
        return ase.io.read(io.StringIO(handle.read()), ":", format="extxyz")


def reduced_formula(atoms: Atoms) -> str:
    return Composition(atoms.get_chemical_formula()).reduced_formula


def read_teacher_frames(folder: Path) -> list[Frame]:
    """Energies of *models*, to be learned from and never to be measured against.

    CHGNet 0.3.0 (MP2020 corrections taken off) on substituted, scaled and rattled cells, and the real MACE-MPA-0 on
    WBM crystals at 21 volumes.
    """
    frames = []
    for path in sorted((folder / "teacher").glob("chgnet_frames_*.extxyz.gz")):
        for atoms in read_text_frames(path):
            plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            energy = atoms.info["REF_energy"]
            frames.append(Frame(atoms.info["id"], "teacher", plain, reduced_formula(atoms), energy))
    with gzip.open(folder / "mpa0" / "wbm_volume_scans.jsonl.gz", "rt") as handle:
        for line in handle:
            scan = json.loads(line)
            structure = Structure.from_dict(scan["structure"])
            formula = structure.composition.reduced_formula
            numbers = [site.specie.Z for site in structure]
            energies = scan["mace_mpa0_energies_eV"]
            for scale, energy in zip(scan["linear_scale"], energies, strict=True):
                if energy - min(energies) > MAX_SCAN_EV_PER_ATOM * len(numbers):
                    continue
                atoms = Atoms(
                    numbers,
                    scaled_positions=structure.frac_coords,
                    cell=structure.lattice.matrix * scale,
                    pbc=True,
                )
                frames.append(Frame(f"{scan['id']}-{scale}", "mpa0_scan", atoms, formula, energy))
    return frames


def read_frames(folder: Path) -> list[Frame]:
    """Every usable frame of the three extxyz sources and the MP entries."""
    frames = []
    for name in ("mptrj", "high_temperature_pressure", "alexandria"):
        for atoms in read_text_frames(folder / f"{name}_frames.extxyz.gz"):
            forces, stress = None, None
            if name != "alexandria":
                forces = atoms.arrays["REF_forces"]
                if np.abs(forces).max() > MAX_FORCE_EV_A:
                    continue
                stress = atoms.info.get("REF_stress")
                limit = MAX_STRESS_GPA * (1 if name == "mptrj" else 10)
                if stress is not None and np.abs(stress).max() * EV_A3_IN_GPA > limit:
                    stress = None
            source = "tp" if name == "high_temperature_pressure" else atoms.info["source"]
            formula = reduced_formula(atoms)
            plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            frames.append(
                Frame(atoms.info["id"], source, plain, formula, atoms.info["REF_energy"], forces, stress)
            )
    with gzip.open(folder / "mp_entries.json.gz") as handle:
        entries = json.load(handle)
    for entry in entries:
        structure = Structure.from_dict(entry["structure"])
        numbers = [site.specie.Z for site in structure]
        atoms = Atoms(numbers, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
        formula = structure.composition.reduced_formula
        frames.append(Frame(entry["entry_id"], "mp_entries", atoms, formula, entry["energy"]))
    known = set(ATOMIC_NUMBERS)
    return [f for f in frames if len(f.atoms) <= MAX_ATOMS and set(f.atoms.numbers) <= known]


def fit_atomic_energies(counts: np.ndarray, energies: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """Ridge regression of energy per atom on atomic fractions, eV per atom of each element."""
    fractions = counts / counts.sum(1, keepdims=True)
    per_atom = energies / counts.sum(1)
    gram = fractions.T @ fractions + ridge * np.eye(counts.shape[1])
    return np.linalg.solve(gram, fractions.T @ per_atom)


def element_likeness(width: float = 1.0) -> np.ndarray:
    """Row-stochastic matrix (89, 89): how much each element is like the others in the periodic table.

    A Gaussian in the distance of group and period; lanthanides and actinides lie in one group of their own,
    a step from group 3, ordered along the row.
    """
    places = []
    for z in ATOMIC_NUMBERS:
        element = Element.from_Z(z)
        rare = element.is_lanthanoid or element.is_actinoid
        along = (z - 57) / 14 if element.is_lanthanoid else (z - 89) / 14 if element.is_actinoid else 0.0
        places.append((3.0 + along if rare else float(element.group), float(element.row), float(rare)))
    place = np.array(places)
    distance2 = ((place[:, None] - place[None]) ** 2).sum(-1)
    kernel = np.exp(-0.5 * distance2 / width**2)
    return kernel / kernel.sum(1, keepdims=True)
