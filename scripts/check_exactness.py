"""Measure how exactly θ0·φ + fixed reproduces MACECalculator, and batched features single ones.

    python scripts/check_exactness.py SOURCE [--n 50]

Models: the architecture of MACE-MPA-0 with random weights (one and two heads), and ``mini``; float64 on the CPU.
Prints one JSON object per model; errors in eV/atom.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.mace_builds import calculator_energies
from mace_bounds import load_model, read
from mace_bounds.backbones.mace import embedded as _embedded
from mpa0_architecture import MPA_0, build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--max-atoms", type=int, default=12)
    args = parser.parse_args()
    good = (r.crystal for r in read(args.source, max_atoms=args.max_atoms) if r.crystal is not None)
    crystals = list(islice(good, args.n))
    n_atoms = np.array([len(c.numbers) for c in crystals])
    for name, module, head in (
        ("mini", _embedded.load(_embedded.MINI_FOLDER).module, None),
        ("MPA-0 architecture, one head", build(MPA_0), None),
        ("MPA-0 architecture, two heads", build(MPA_0, ["Default", "second"]), "second"),
    ):
        wanted = calculator_energies(copy.deepcopy(module), crystals, head)
        frozen = load_model(module, head=head, dtype="float64", device="cpu")
        block = frozen.extract(crystals)
        by_hand = np.column_stack([block.features, n_atoms]) @ frozen.theta0_ev + block.fixed_energy_ev
        single = np.concatenate([frozen.extract([c]).features for c in crystals])
        scale = np.abs(block.features).max(axis=1, keepdims=True)
        result = {
            "model": name,
            "crystals": len(crystals),
            "max_error_ev_per_atom": float(np.abs((by_hand - wanted) / n_atoms).max()),
            "batched_against_single_relative": float((np.abs(single - block.features) / scale).max()),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
