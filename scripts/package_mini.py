"""Turn a finished run of ``train_mini.py`` into the folder that ships in the package.

python scripts/package_mini.py runs/mini
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mace_bounds.backbones.mace import embedded as _embedded
from mace_bounds.structures import composition_keys

CARD = """# mini

A small MACE (`ScaleShiftMACE`, {parameters:,} parameters, 89 elements, cutoff {cutoff} Å) made by the mace-bounds project,
so that every command works offline within seconds. **It stands in for no foundation model**: its errors are its own.

- Architecture: {architecture}
- **Distilled.** Most of what it learned from are energies of better models, not of DFT: {teacher:,} cells (substituted, strained
  and rattled crystals; fcc, bcc, hcp, sc and diamond cells of the elements) with energies of CHGNet 0.3.0, MP2020
  corrections taken off, and {scan:,} energies of MACE-MPA-0 on WBM crystals at up to 21 volumes. CHGNet's difference from DFT
  has a linear readout of its own, which is not part of this model.
- DFT: Alexandria (relaxed at 0, 25 and 50 GPa), MPtrj frames, high-temperature/pressure snapshots and Materials
  Project entries; uncorrected PBE/PBE+U energies; forces and stresses of MPtrj and the snapshots. No DFT energy of WBM.
  Altogether {n_train:,} frames of {n_formulas:,} compositions.
- Split by composition: a hash of the reduced formula keeps {held:.0%} of the compositions out of training
  ({watched:.0%} to watch the run, the rest for fitting and calibrating heads). The compositions it has seen are kept beside
  the weights as 64-bit keys, so that every table can say `in_training`.
- Run: {epochs} epochs, {steps:,} steps, {minutes} minutes on {processes} CPU process(es) of one thread, exponential moving average
  of the weights; `scripts/train_mini.py` is the whole recipe. The learning rate follows the clock, so a rerun is not
  bit-identical.{remark}
- Licence: MIT, as the package. The data's licences: MIT, CC BY 4.0, modified BSD; the teachers': CHGNet's weights modified BSD
  (Lawrence Berkeley National Laboratory), MACE-MPA-0's weights MIT, its published energies Apache-2.0 (see the sources' own pages).

Energy errors in meV/atom, {seen_n:,} training frames against compositions that training has not seen:

| source | n | MAE | RMSE | median | training MAE | training median |
|---|--:|--:|--:|--:|--:|--:|
{rows}
"""

LABELS = {
    "alexandria_pressure_P000": "Alexandria, relaxed at 0 GPa",
    "alexandria_pressure_P025": "Alexandria, relaxed at 25 GPa",
    "alexandria_pressure_P050": "Alexandria, relaxed at 50 GPa",
    "matsciml_alexandria_devset": "Alexandria, small development set",
    "mattersim_alexandria_random_1k": "Alexandria, random relaxed",
    "mattersim_mptrj_highest_stress_1k": "MPtrj, frames of highest stress",
    "mattersim_mptrj_random_1k": "MPtrj, random frames",
    "orb_mptrj_fixture_forces": "MPtrj, a few more frames",
    "mp_entries": "Materials Project entries",
    "tp": "high temperature and pressure",
    "mpa0_scan": "WBM at many volumes (against MACE-MPA-0, not DFT)",
    "teacher": "made-up cells (against CHGNet, not DFT)",
}


def table_rows(unseen: dict, seen: dict) -> str:
    lines = []
    for source, values in unseen.items():
        trained = seen.get(source, {})
        numbers = [values["n"], *(round(values[f"{k}_mev_per_atom"]) for k in ("mae", "rmse", "median"))]
        numbers += [round(trained[f"{k}_mev_per_atom"]) if trained else "–" for k in ("mae", "median")]
        lines.append(f"| {LABELS[source]} | " + " | ".join(str(n) for n in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=_embedded.MINI_FOLDER)
    parser.add_argument("--remark", default="", help="what was odd about the run, for the card")
    args = parser.parse_args()
    result = json.loads((args.run / "result.json").read_text())
    architecture = dict(result["architecture"])
    architecture |= {"atomic_inter_scale": architecture.pop("scale"), "atomic_inter_shift": 0.0}
    module = _embedded.build(architecture, result["atomic_numbers"], result["atomic_energies_ev"])
    state = torch.load(args.run / "average.pt", weights_only=True)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[name])
    config = {
        "architecture": architecture,
        "atomic_numbers": result["atomic_numbers"],
        "atomic_energies_ev": result["atomic_energies_ev"],
        "training": {
            k: result[k] for k in ("epochs", "steps", "minutes", "processes", "n_train", "unseen", "seen")
        },
    }
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    card = CARD.format(
        parameters=parameters,
        cutoff=architecture["r_max"],
        architecture=", ".join(
            f"{k} {architecture[k]}"
            for k in ("hidden_irreps", "max_ell", "correlation", "num_interactions", "MLP_irreps")
        ),
        n_formulas=len(result["train_formulas"]),
        held=1 - result["backbone_fraction"],
        watched=result["validation_fraction"],
        remark=f" {args.remark}" if args.remark else "",
        seen_n=sum(v["n"] for v in result["seen"].values()),
        rows=table_rows(result["unseen"], result["seen"]),
        **{k: result["frames"][v] for k, v in (("teacher", "teacher"), ("scan", "mpa0_scan"))},
        **{k: result[k] for k in ("n_train", "epochs", "steps", "minutes", "processes")},
    )
    _embedded.save(args.out, module, config, card, composition_keys(result["train_formulas"]))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
