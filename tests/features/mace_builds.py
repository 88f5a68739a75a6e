"""Randomly initialised models of mace's own classes, and crystals to run them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase.collections import dcdft

from mace_bounds.features import _mace
from mace_bounds.structures import Crystal

ATOMIC_NUMBERS = [*range(1, 84), *range(89, 95)]
MPA_0: dict[str, Any] = {
    "r_max": 6.0,
    "num_bessel": 10,
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "128x0e+128x1o",
    "MLP_irreps": "16x0e",
    "correlation": 3,
    "avg_num_neighbors": 40.0,
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
    "use_reduced_cg": False,
}
TINY = MPA_0 | {"hidden_irreps": "8x0e+8x1o", "correlation": 2, "max_ell": 2, "r_max": 4.0, "num_bessel": 6}


def build(options: dict[str, Any], heads: list[str] | None = None, seed: int = 0) -> torch.nn.Module:
    """A ``ScaleShiftMACE`` in float64 with random weights, energies of atoms, scale and shift."""
    modules = _mace.import_mace()
    from e3nn import o3

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    values = dict(options)
    values |= {k: o3.Irreps(values[k]) for k in ("hidden_irreps", "MLP_irreps")}
    values |= {
        k: modules.interaction_classes[values[k]] for k in ("interaction_cls", "interaction_cls_first")
    }
    n = len(heads or ["one"])
    energies = rng.normal(-4.0, 2.0, (n, len(ATOMIC_NUMBERS)))
    scale, shift = 0.8 + 0.1 * np.arange(n), 0.16 - 0.3 * np.arange(n)
    with _mace.default_dtype(torch.float64), _mace.quiet():
        return modules.ScaleShiftMACE(
            **values,
            num_elements=len(ATOMIC_NUMBERS),
            gate=torch.nn.functional.silu,
            atomic_energies=energies if n > 1 else energies[0],
            atomic_numbers=ATOMIC_NUMBERS,
            heads=heads,
            atomic_inter_scale=scale.tolist() if n > 1 else float(scale[0]),
            atomic_inter_shift=shift.tolist() if n > 1 else float(shift[0]),
        )


def real_crystals(n: int, seed: int = 0) -> list[Crystal]:
    """Elemental crystals of ase's ``dcdft`` collection (at most 4 atoms), slightly rattled."""
    rng = np.random.default_rng(seed)
    crystals = []
    for atoms in (dcdft[name] for name in dcdft.names):
        if len(atoms) <= 4 and set(atoms.numbers) <= set(ATOMIC_NUMBERS):
            positions = atoms.positions + rng.normal(0, 0.03, atoms.positions.shape)
            crystals.append(Crystal(atoms.numbers.astype(np.int64), positions, np.array(atoms.cell)))
    return crystals[:n]


def calculator_energies(module: torch.nn.Module, crystals: list[Crystal], head: str | None) -> np.ndarray:
    """Energies by mace's own ``MACECalculator`` in float64."""
    _mace.import_mace()
    with _mace.default_dtype(torch.float64), _mace.quiet():
        from mace.calculators import MACECalculator

        options = {} if head is None else {"head": head}
        calculator = MACECalculator(models=module, device="cpu", default_dtype="float64", **options)
        energies = []
        for crystal in crystals:
            atoms = crystal.to_atoms()
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
    return np.array(energies)
