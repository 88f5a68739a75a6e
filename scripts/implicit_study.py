"""Implicit derivatives of V0 and B0 against every draw by itself, for ten crystals.

    python scripts/implicit_study.py --model mini

Draws are those that ship with the measured errors of the model's properties, and smaller ones: θ0 + λ (θ - θ0). Printed is
the standard deviation by implicit derivatives over that of the draws' own equations of state.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from ase.build import bulk

from mace_bounds.backbones import load_model
from mace_bounds.errors import StructureError
from mace_bounds.propagation import (
    Potential,
    at_volumes,
    curves,
    elastic_curves,
    equilibrium_response,
    fit_equations_of_state,
    measured_errors,
)
from mace_bounds.propagation.measured import SHIPPED
from mace_bounds.structures import read

CANDIDATES = (
    ("Cu", "fcc"), ("Ag", "fcc"), ("Au", "fcc"), ("Pd", "fcc"), ("Pt", "fcc"), ("Ir", "fcc"), ("Rh", "fcc"), ("Al", "fcc"),
    ("W", "bcc"), ("Mo", "bcc"), ("Ta", "bcc"), ("Nb", "bcc"), ("V", "bcc"), ("Na", "bcc"), ("K", "bcc"), ("Si", "diamond"),
)  # fmt: skip
SCALES = (1.0, 0.3, 0.1, 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--errors", type=Path, default=SHIPPED, help="Folder above the measured errors.")
    arguments = parser.parse_args()
    model = load_model(arguments.model, dtype="float64")
    errors = measured_errors(model, arguments.errors)
    if errors is None:
        raise SystemExit("no measured errors of this model; make them with property_study.py --write")
    change = errors.coefficients.draws(1000) - model.theta0_ev
    done = 0
    print("crystal  λ      V0: std (Å³), implicit/draws    B0: std (GPa), implicit/draws    failed")
    for symbol, lattice in CANDIDATES:
        cell = next(iter(read(bulk(symbol, lattice)))).crystal
        frozen = Potential.frozen(model)
        try:
            v0 = curves(cell, frozen).volume_a3[0]
        except StructureError as error:
            print(f"{symbol}: {error}")
            continue
        volumes = v0 * np.linspace(0.94, 1.06, 9)
        rows = frozen.rows(at_volumes(cell, volumes))
        slopes = equilibrium_response(volumes, rows, model.theta0_ev)
        for scale in SCALES:
            found = fit_equations_of_state(volumes, rows.energies_ev(model.theta0_ev + scale * change))
            good = np.isfinite(found.volume_a3)
            parts = []
            for slope, values in zip(slopes, (found.volume_a3, found.bulk_modulus_gpa), strict=True):
                std = float(np.std(values[good]))
                parts.append(f"{std:12.4g} {float(np.std(scale * change @ slope)) / std:10.4f}")
            print(f"{symbol:7s} {scale:5.2f} {'      '.join(parts)}      {1 - good.mean():.3f}")
        done += 1
        if done == 10:
            break
    cell = next(iter(read(bulk("Mg")))).crystal
    potential = Potential.of(model, errors.coefficients, 1000)
    began = time.perf_counter()
    curves(cell, potential)
    elastic_curves(cell, potential)
    print(
        f"1,000 draws of the equation of state and C_ij of Mg (2 atoms): {time.perf_counter() - began:.2f} s"
    )


if __name__ == "__main__":
    main()
