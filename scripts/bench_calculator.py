"""Time of BoundsCalculator as a share of mace's own calculator: energy, forces and stress, with and without bounds.

Both run in turn on the same displaced cells in one process, on one thread; what counts is processor time, which other
programs on the machine change little. Printed are smallest times, and the median of ratios of steps that came together.

    python scripts/bench_calculator.py [--atoms 2 8 32 64] [--repeats 7] [--mpa-0] [--no-draws]

``--mpa-0`` takes random weights in the architecture of MACE-MPA-0 with the head of mini, whose numbers mean nothing then.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.build import bulk

from mace_bounds import BoundsCalculator, BoundsPredictor, load_model
from mace_bounds.backbones.mace import checkpoint as _mace
from mace_bounds.features import ExtractSettings

sys.path.insert(0, str(Path(__file__).parent))


def cell(n_atoms: int) -> Atoms:
    """Rock salt of about so many atoms."""
    primitive = bulk("MgO", "rocksalt", 4.21)
    repeats = {2: (1, 1, 1), 8: (2, 2, 1), 16: (2, 2, 2), 32: (4, 2, 2), 64: (4, 4, 2), 128: (4, 4, 4)}[
        n_atoms
    ]
    return primitive * repeats


def seconds(calculator, atoms: Atoms, out: list[float], seed: int) -> None:
    """Add the time of one step: positions move, then energy, forces and stress."""
    moved = atoms.copy()
    moved.rattle(0.02, seed=seed)
    moved.calc = calculator
    start = time.process_time()
    moved.get_forces(), moved.get_stress(), moved.get_potential_energy()
    out.append(time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[2, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mpa-0", action="store_true")
    parser.add_argument("--no-draws", action="store_true", help="leave out the calculator with four draws")
    arguments = parser.parse_args()
    predictor = BoundsPredictor("mini", settings=ExtractSettings(dtype="float64", device="cpu"))
    module = predictor.model.module
    if arguments.mpa_0:
        from mpa0_architecture import MPA_0, build

        module = build(MPA_0)
        big = load_model(copy.deepcopy(module), dtype="float64", device="cpu")
        predictor = copy.copy(predictor)
        predictor.__dict__["energy_model"] = big  # forces by the large one, features by mini
    _mace.import_mace()
    with _mace.quiet():
        from mace.calculators import MACECalculator

        reference = MACECalculator(models=copy.deepcopy(module), device="cpu", default_dtype="float64")
    ours = {"bounds": BoundsCalculator(predictor)}
    if not arguments.no_draws:
        ours["4 draws"] = BoundsCalculator(predictor, n_draws=4)
    print("atoms  MACECalculator  of each: time, ratio of smallest times, median of ratios")
    for n_atoms in arguments.atoms:
        atoms, times = cell(n_atoms), {name: list[float]() for name in ("mace", *ours)}
        for k in range(arguments.repeats + 2):
            for name, calculator in {"mace": reference, **ours}.items():
                with _mace.quiet():
                    seconds(calculator, atoms, times[name], k)
        least = {name: min(values[2:]) for name, values in times.items()}
        typical = {
            name: np.median(np.array(v[2:]) / np.array(times["mace"][2:])) for name, v in times.items()
        }
        parts = [f"{n_atoms:5d}  {1e3 * least['mace']:11.1f} ms"]
        parts += [
            f"{name} {1e3 * least[name]:.1f} ms {least[name] / least['mace']:.2f} {typical[name]:.2f}"
            for name in ours
        ]
        print("  ".join(parts), flush=True)


if __name__ == "__main__":
    main()
