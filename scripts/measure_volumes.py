"""Where E(V) of a model has its minimum, beside the all-electron volumes of elements and oxides.

    python scripts/measure_volumes.py mini --data ../shared/data
    python scripts/measure_volumes.py FOLDER_OF_PACKAGE_MINI --data ../shared/data
    python scripts/measure_volumes.py chgnet --data ../shared/data --only oxides --keep runs/volumes.json

Not counted: magnetic elements, f elements and oxygen by itself (the reference is not spin-polarised). A system counts as
right within x % if E(V), on a grid of 1 % in volume, has a local minimum there.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mace_bounds import load_model
from mace_bounds._io import write_json
from mace_bounds.backbones import Backbone
from mace_bounds.backbones.mace import embedded
from mace_bounds.structures import Crystal

LEFT_OUT = {"Cr", "Mn", "Fe", "Co", "Ni", "O"}
RELATIVE_VOLUMES = np.arange(0.80, 1.201, 0.01)


def counted(system: dict[str, Any]) -> bool:
    z = atomic_numbers[system["element"]]
    return system["element"] not in LEFT_OUT and not (58 <= z <= 70 or 90 <= z <= 103)


def curve_ev(model: Backbone, system: dict[str, Any]) -> np.ndarray:
    atoms = Atoms(
        system["symbols"], cell=system["cell"], scaled_positions=system["scaled_positions"], pbc=True
    )
    volume = system["fit"]["ae_average"]["V0_a3"]
    crystals = []
    for relative in RELATIVE_VOLUMES:
        scale = (relative * volume / atoms.get_volume()) ** (1 / 3)
        cell = atoms.cell.array * scale
        crystals.append(Crystal(atoms.numbers, atoms.get_scaled_positions() @ cell, cell))
    block = model.extract(crystals)
    n_atoms = np.full(len(crystals), float(len(atoms)))
    return np.column_stack([block.features, n_atoms]) @ model.theta0_ev + block.fixed_energy_ev


def minimum(energy_ev: np.ndarray) -> float:
    """Relative volume of the local minimum nearest to one; nan without one."""
    inner = np.flatnonzero((energy_ev[1:-1] < energy_ev[:-2]) & (energy_ev[1:-1] < energy_ev[2:])) + 1
    if len(inner) == 0:
        return np.nan
    return float(RELATIVE_VOLUMES[inner[np.abs(RELATIVE_VOLUMES[inner] - 1).argmin()]])


def minima(model: Backbone, systems: list[dict[str, Any]], keep: Path | None) -> np.ndarray:
    """Relative volumes of the minima; those that are kept are not computed again."""
    known = json.loads(keep.read_text()) if keep and keep.is_file() else {}
    for done, system in enumerate(systems, 1):
        if system["id"] not in known:
            place = minimum(curve_ev(model, system))
            known[system["id"]] = None if np.isnan(place) else place  # JSON has no NaN
        if keep and (done % 10 == 0 or done == len(systems)):
            write_json(keep, known)
            print(f"{done} of {len(systems)}", flush=True)
    return np.array([known[system["id"]] for system in systems], dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=("oxides", "unaries"))
    parser.add_argument("--keep", type=Path, help="file of minima, to go on from after an interruption")
    args = parser.parse_args()
    folder = Path(args.model)
    model = load_model(embedded.load(folder).module if folder.is_dir() else args.model, device="cpu")
    with gzip.open(args.data / "acwf" / "acwf_pbe.jsonl.gz", "rt") as handle:
        systems = [system for system in map(json.loads, handle) if counted(system)]
    systems = [s for s in systems if {atomic_numbers[x] for x in s["symbols"]} <= set(model.atomic_numbers)]
    systems = [s for s in systems if args.only in (None, s["set"])]
    found = minima(model, systems, args.keep)
    kinds = np.array([system["set"] for system in systems])
    for kind in ("all", *np.unique(kinds)):
        error = np.abs(found[(kinds == kind) | (kind == "all")] - 1)
        shares = {f"within_{x}_percent": round(float((error < x / 100 + 1e-9).mean()), 3) for x in (3, 6)}
        result = {"model": args.model, "kind": str(kind), "n": len(error)} | shares
        print(json.dumps(result | {"no_minimum": int(np.isnan(error).sum())}), flush=True)


if __name__ == "__main__":
    main()
