"""Runs with BoundsCalculator beside mace's own calculator: a relaxation, dynamics to a threshold, energy in NVE, files.

    python scripts/calculator_study.py --out runs/calculator.json

Both start from the same atoms, in float64 on one thread. The energy of NVE is that of mini itself, and of the head of
tungsten (whose forces are those of the refitted readout) for a cell with a vacancy. Some ten minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from mace_bounds import BoundsCalculator, BoundsPredictor
from mace_bounds._io import write_json
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.calculator import Threshold
from mace_bounds.features import ExtractSettings

FLOAT64 = ExtractSettings(dtype="float64", device="cpu")


def mace_calculator(module):
    """Mace's own calculator of a copy of a network."""
    _mace.import_mace()
    with _mace.quiet():
        from mace.calculators import MACECalculator

        return MACECalculator(models=copy.deepcopy(module), device="cpu", default_dtype="float64")


def rock_salt(n_atoms: int) -> Atoms:
    """Of 8 or 32 atoms, off its minimum."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True) * ((1, 1, 1) if n_atoms == 8 else (4, 1, 1))
    atoms.rattle(0.1, seed=2)
    return atoms


def relaxation(calculators: dict, steps: int = 200) -> dict:
    """Atoms and cell of 32 atoms, so many steps of FIRE."""
    found = {}
    for name, calculator in calculators.items():
        atoms = rock_salt(32)
        atoms.set_cell(atoms.cell @ np.diag([1.03, 0.98, 1.01]), scale_atoms=True)
        atoms.calc = calculator
        with _mace.quiet(), FIRE(FrechetCellFilter(atoms), logfile=None) as optimiser:
            optimiser.run(fmax=0.0, steps=steps)
            force = float(np.abs(atoms.get_forces()).max())
        found[name] = atoms, optimiser.nsteps, force
    (ours, done, force), (other, _, _) = found["bounds"], found["mace"]
    return {
        "steps": done,
        "largest_force_ev_a": force,
        "energy_differs_ev": abs(ours.get_potential_energy() - other.get_potential_energy()),
        "positions_differ_a": float(np.abs(ours.positions - other.positions).max()),
        "cells_differ_a": float(np.abs(ours.cell.array - other.cell.array).max()),
    }


def to_the_threshold(predictor: BoundsPredictor, steps: int = 1000) -> dict:
    """Langevin dynamics of 8 atoms of tungsten from 300 K, heated by 10 K a step, until the energy is too uncertain."""
    limit = Threshold(std_mev_per_atom=15.0, then="stop")
    calculator = BoundsCalculator(predictor, uncertainty_threshold=limit)
    atoms = bulk("W", "bcc", a=3.18, cubic=True) * (2, 2, 1)
    atoms.calc = calculator
    rng = np.random.default_rng(0)
    dynamics = Langevin(
        atoms, 2 * units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    watch = calculator.watch(dynamics)
    dynamics.attach(lambda: dynamics.set_temperature(temperature_K=300 + 10 * dynamics.nsteps))
    dynamics.run(steps)
    return {
        "steps": dynamics.nsteps,
        "temperature_k": float(atoms.get_temperature()),
        "rows": len(watch.table),
        "std_at_first_mev_per_atom": 1000 * float(watch.table["energy_uncertainty_ev"].iloc[0]) / len(atoms),
        "exceeded": calculator.exceeded,
    } | kept_in_a_file(calculator, atoms)


def kept_in_a_file(calculator: BoundsCalculator, atoms: Atoms) -> dict:
    """Whether what is annotated is the same after it was written and read as extended XYZ."""
    calculator.annotate(atoms)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "kept.extxyz", atoms)
        back = read(Path(folder) / "kept.extxyz")
    names = [name for kept in (atoms.info, atoms.arrays) for name in kept if name.startswith("mace_bounds")]
    worst = 0.0
    for name in names:
        before, after = ((a.info | a.arrays)[name] for a in (atoms, back))
        if isinstance(before, (str, bool)):
            assert before == after, name
        else:
            worst = max(
                worst, float(np.max(np.abs(np.asarray(before) - after) / np.maximum(np.abs(before), 1e-9)))
            )
    forces = float(np.abs(atoms.get_forces() - back.get_forces()).max())
    return {"kept": len(names), "largest_relative_change": worst, "forces_differ_ev_a": forces}


def total_energies(atoms: Atoms, calculator, steps: int, kelvin: float, femtoseconds: float) -> np.ndarray:
    """Of every step of NVE, eV."""
    atoms = atoms.copy()
    atoms.calc = calculator
    momenta = np.random.default_rng(1).normal(size=(len(atoms), 3))
    momenta *= np.sqrt(2 * kelvin * units.kB * atoms.get_masses())[
        :, None
    ]  # half of it becomes potential energy
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, timestep=femtoseconds * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    with _mace.quiet():
        dynamics.run(steps)
    return np.array(energies)


def conservation(atoms: Atoms, calculators: dict, steps: int = 2000, femtoseconds: float = 1.0) -> dict:
    """Drift (slope of a line) and scatter about it of the total energy, for each calculator."""
    found = {}
    for name, calculator in calculators.items():
        energies = total_energies(atoms, calculator, steps, 300.0, femtoseconds)
        ps = np.arange(len(energies)) * femtoseconds / 1000
        line = np.polyfit(ps, energies, 1)
        found[name] = {
            "drift_mev_per_atom_per_ps": 1000 * float(line[0]) / len(atoms),
            "scatter_mev_per_atom": 1000 * float(np.std(energies - np.polyval(line, ps))) / len(atoms),
        }
    return {"atoms": len(atoms), "steps": steps, "femtoseconds": femtoseconds} | found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="of NVE")
    parser.add_argument("--only", nargs="*", help="of the parts")
    args = parser.parse_args()
    mini = BoundsPredictor("mini", settings=FLOAT64)
    both = {"bounds": BoundsCalculator(mini), "mace": mace_calculator(mini.model.module)}
    tungsten = BoundsCalculator(BoundsPredictor(head="tungsten-mini", settings=FLOAT64))
    vacancy = bulk("W", "bcc", a=3.19, cubic=True) * 2
    del vacancy[0]
    parts = {
        "relaxation": lambda: relaxation(both),
        "threshold": lambda: to_the_threshold(tungsten.predictor),
        "nve": lambda: conservation(rock_salt(8), both, args.steps),
        "nve_tungsten": lambda: conservation(vacancy, {"bounds": tungsten}, args.steps, 2.0),
    }
    found = {"model": mini.model.digest}
    for name, part in parts.items():
        if args.only and name not in args.only:
            continue
        found[name] = part()
        print(name, json.dumps(found[name], indent=1), flush=True)
        write_json(args.out, found)


if __name__ == "__main__":
    main()
