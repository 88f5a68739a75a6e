"""Write labelled structures: elemental crystals under strain, with all-electron PBE strain energies.

    python scripts/make_dcdft.py demo/dcdft.extxyz --model mini

The labels come from the WIEN2k equations of state in ASE's ``dcdft`` collection and have the model's own
energy at the equilibrium volume as their zero:

    label(V) = E_model(V0) + E_WIEN2k(V) - E_WIEN2k(V0)

so label - E_model is the model's error in the strain energy (zero at V0 by construction; volumes within 3 % of
V0 are left out), not an error of total or formation energies. They are real DFT energy differences of another code than
the model was trained on. They belong to the model named: make the file again for another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="extended XYZ file to write")
    parser.add_argument("--model", default="mini", help="the model that gives the zero of the labels")
    options = parser.parse_args(arguments)

    from mace_bounds.backbones import load_model
    from mace_bounds.examples import LABEL, SCALES, strain_records, write_extxyz

    model = load_model(options.model)
    records = strain_records(model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    n = write_extxyz(records, options.out, model)
    print(
        f"{n} crystals in {options.out}: {n // len(SCALES)} elements at {len(SCALES)} volumes from "
        f"{SCALES[0]:g} to {SCALES[-1]:g} V0.\n"
        f"Label: {LABEL}, with {model.name} as the model.\n"
        "Label - E_model is the error of the strain energy, not of total or formation energies."
    )


if __name__ == "__main__":
    main()
