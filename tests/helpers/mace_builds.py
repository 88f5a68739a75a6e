"""Randomly initialised models of mace's own classes, and crystals to run them on."""

from __future__ import annotations

import copy

import numpy as np
import torch
from ase.collections import dcdft

import mpa0_architecture
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.structures import Crystal
from mpa0_architecture import ATOMIC_NUMBERS, MPA_0

__all__ = [
    "ATOMIC_NUMBERS",
    "MPA_0",
    "TINY",
    "build",
    "calculator_energies",
    "calculator_results",
    "evaluated_energies",
    "mace_calculator",
    "real_crystals",
]
TINY = MPA_0 | {"hidden_irreps": "8x0e+8x1o", "correlation": 2, "max_ell": 2, "r_max": 4.0, "num_bessel": 6}
_BUILT: dict[str, torch.nn.Module] = {}


def build(options, heads=None, seed=0, numbers=ATOMIC_NUMBERS) -> torch.nn.Module:
    """A random model of an architecture; each is built once and copied, as e3nn takes a second to compile one."""
    key = repr((sorted(options.items()), heads, seed, numbers))
    if key not in _BUILT:
        _BUILT[key] = mpa0_architecture.build(options, heads, seed, numbers)
    return copy.deepcopy(_BUILT[key])


def real_crystals(n: int, seed: int = 0) -> list[Crystal]:
    """Elemental crystals of ase's ``dcdft`` collection (at most 4 atoms), slightly rattled."""
    rng = np.random.default_rng(seed)
    crystals = []
    for atoms in (dcdft[name] for name in dcdft.names):
        if len(atoms) <= 4 and set(atoms.numbers) <= set(ATOMIC_NUMBERS):
            positions = atoms.positions + rng.normal(0, 0.03, atoms.positions.shape)
            crystals.append(Crystal(atoms.numbers.astype(np.int64), positions, np.array(atoms.cell)))
    return crystals[:n]


def mace_calculator(module: torch.nn.Module, head: str | None = None):
    """Mace's own ``MACECalculator`` of a copy of a model in float64."""
    _mace.import_mace()
    with _mace.default_dtype(torch.float64), _mace.quiet():
        from mace.calculators import MACECalculator

        options = {} if head is None else {"head": head}
        models = copy.deepcopy(module)
        return MACECalculator(models=models, device="cpu", default_dtype="float64", **options)


def calculator_results(module: torch.nn.Module, crystals: list[Crystal], head: str | None = None) -> list:
    """(energy, forces, stress) of each crystal by mace's own ``MACECalculator`` in float64."""
    calculator = mace_calculator(module, head)
    results = []
    for crystal in crystals:
        atoms = crystal.to_atoms()
        atoms.calc = calculator
        with _mace.quiet():
            results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)))
    return results


def evaluated_energies(module: torch.nn.Module, crystals: list[Crystal], head: str | None) -> np.ndarray:
    """Energies as ``mace_eval_configs`` computes them: mace's own neighbours, batches and forward, in float64."""
    _mace.import_mace()
    with _mace.default_dtype(torch.float64), _mace.quiet(), torch.no_grad():
        from mace import data, tools

        table = tools.AtomicNumberTable([int(z) for z in module.atomic_numbers])
        cutoff, heads = float(module.r_max), getattr(module, "heads", None)
        configs = [
            data.config_from_atoms(crystal.to_atoms(), head_name=head or "Default") for crystal in crystals
        ]
        dataset = [data.AtomicData.from_config(c, z_table=table, cutoff=cutoff, heads=heads) for c in configs]
        loader = tools.torch_geometric.dataloader.DataLoader(
            dataset=dataset, batch_size=16, shuffle=False, drop_last=False
        )
        return np.concatenate(
            [module(batch.to_dict(), compute_force=False)["energy"].numpy() for batch in loader]
        )


def calculator_energies(module: torch.nn.Module, crystals: list[Crystal], head: str | None) -> np.ndarray:
    """Energies by mace's own ``MACECalculator`` in float64."""
    return np.array([energy for energy, _, _ in calculator_results(module, crystals, head)])
