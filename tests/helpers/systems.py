"""Small chemical systems."""

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from ase.build import bulk


def magnesium_aluminium() -> list[Atoms]:
    """Magnesium, aluminium and some structures of them, with ids and without labels."""
    crystals = {"Mg": bulk("Mg", "hcp", 3.2), "Al": bulk("Al", "fcc", 4.05)}
    for kind, a in (("cesiumchloride", 3.4), ("rocksalt", 5.6), ("zincblende", 6.0)):
        crystals[f"MgAl-{kind}"] = bulk("MgAl", kind, a)
    for n in (2, 3):
        part = bulk("Al", "fcc", 4.1) * (n, 2, 1)
        part.numbers[0] = 12
        crystals[f"part-{n}"] = part
    part = bulk("Mg", "hcp", 3.2) * (2, 1, 1)
    part.numbers[0] = 13
    crystals["part-hcp"] = part
    for name, atoms in crystals.items():
        atoms.info["id"] = name
    return list(crystals.values())


def labelled(crystals: list[Atoms], energies_ev: list[float]) -> list[Atoms]:
    """The same with these labels."""
    out = [atoms.copy() for atoms in crystals]
    for atoms, energy in zip(out, energies_ev, strict=True):
        atoms.info["REF_energy"] = float(energy)
    return out


def ternary(n: int = 160) -> list[Atoms]:
    """Cells of lithium, magnesium and aluminium with atoms near the sites of a grid, the elements among them."""
    rng = np.random.default_rng(5)
    sites = np.array(list(product((0.25, 0.75), repeat=3)))
    crystals = []
    for k in range(n):
        kinds = ("Li", "Mg", "Al")[k : k + 1] or rng.choice(
            ["Li", "Mg", "Al"], rng.integers(2, 4), replace=False
        )
        symbols = [str(kind) for kind in kinds for _ in range(rng.integers(1, 4))][:8]
        places = sites[: len(symbols)] + 0.02 * rng.standard_normal((len(symbols), 3))
        length = (8 * rng.uniform(14, 20)) ** (1 / 3)
        atoms = Atoms(symbols, scaled_positions=places, cell=[length] * 3, pbc=True)
        atoms.info |= {"id": f"ternary-{k:03d}", "source": "made"}
        crystals.append(atoms)
    return crystals
