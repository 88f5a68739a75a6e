"""How far properties of a model are from all-electron DFT, and which widths rank these errors.

    python scripts/property_study.py --data ../shared/data --out runs/properties --model mini

Equations of state of elements and oxides (``acwf``: averages of two all-electron codes, PBE, not spin-polarised, so that
magnetic elements, f elements and O2 are left out) and energy differences between phases of elements. Widths are a
constant, a share of the value, a regression on features, and the spread of draws of a POPS head on energy differences
within a composition (Alexandria at 0, 25 and 50 GPa), alone or with the value. Everything is measured on elements that
took no part. Beside it published results of the real MACE-MPA-0: volumes of WBM crystals, vacancies, ten solids.
Features are kept in ``--out``, so that a run goes on where it was stopped; ``--write`` leaves what the package ships.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from pathlib import Path

import numpy as np

from mace_bounds._io import atomic
from mace_bounds.backbones import load_model
from mace_bounds.propagation import (
    MeasuredErrors,
    fit_equations_of_state,
    measured_errors,
)
from property_errors import Table, error_model, measure, print_measured
from property_rows import (
    all_electron,
    crystal,
    curves,
    difference_coefficients,
    difference_rows,
    kept,
    lines,
)


def properties(data: Path, found, draws, model):
    """Tables of errors by name."""
    rows = {"elements": [], "oxides": []}
    phases, energies, missing = [], {}, {"elements": 0, "oxides": 0}
    theta = np.concatenate([model.theta0_ev[None], draws])
    for row, _, v0, b0 in all_electron(data):
        kind = "elements" if row["set"] == "unaries" else "oxides"
        one = found.get((row["element"], row["configuration"]))
        state = None if one is None else one.state(theta)
        if state is None or not np.isfinite(state.volume_a3[0]) or state.bulk_modulus_gpa[0] <= 0:
            missing[kind] += 1
            continue
        middle = one.features[len(one.features) // 2, :-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = [
                np.nanstd(a[1:]) if np.isfinite(a[1:]).sum() > 20 else np.nan
                for a in (state.volume_a3, state.bulk_modulus_gpa)
            ]
        v, b = state.volume_a3[0], state.bulk_modulus_gpa[0]
        inputs = [np.log(v), np.log(b), state.bulk_derivative[0].clip(0, 10), *middle]
        rows[kind].append((row["element"], v, v0, b, b0, *spread, inputs))
        if kind == "elements":
            energies[row["element"], row["configuration"].removeprefix("X/")] = (state.energy_ev, middle)
    with Path(data / "acwf" / "unary_phase_differences.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            a, b = ((line["element"], line[k]) for k in ("phase", "reference_phase"))
            if a in energies and b in energies and a != b:
                wanted = np.mean([float(line["wien2k_mev"]), float(line["fleur_mev"])])
                mine = 1000 * (energies[a][0] - energies[b][0])
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    spread = np.nanstd(mine[1:])
                inputs = [np.log(10 + abs(mine[0])), *np.abs(energies[a][1] - energies[b][1])]
                phases.append((line["element"], mine[0], wanted, spread, inputs))
    tables = {}
    for kind, found_rows in rows.items():
        group = np.array([r[0] for r in found_rows])
        inputs = np.array([r[7] for r in found_rows])
        for name, k, s in (("V0", 1, 5), ("B0", 3, 6)):
            value, wanted, spread = (np.array([r[i] for r in found_rows]) for i in (k, k + 1, s))
            spread = np.where(np.isfinite(spread), spread, np.nanmax(spread))
            tables[f"{name} of {kind}"] = Table(value, wanted, group, inputs, spread)
    if phases:
        group, value, wanted, spread, inputs = (np.array(c) for c in zip(*phases, strict=True))
        tables["phase differences of elements"] = Table(value, wanted, group, inputs, spread, positive=False)
    return tables, missing


def published(data: Path, model, out: Path) -> dict[str, Table]:
    """Errors of the real MACE-MPA-0, from energies that were published: volumes of WBM crystals, vacancies."""
    scans = lines(data / "mpa0" / "wbm_volume_scans.jsonl.gz")
    values, wanted, group, cells = [], [], [], []
    for scan in scans:
        sites, matrix = scan["structure"]["sites"], scan["structure"]["lattice"]["matrix"]
        symbols = [site["species"][0]["element"] for site in sites]
        row = {"cell": matrix, "symbols": symbols, "scaled_positions": [site["abc"] for site in sites]}
        cell = crystal(row)
        if not set(cell.counts) <= set(model.atomic_numbers):
            continue
        volumes, energies = (np.array(scan[k], dtype=float) for k in ("volumes_A3", "mace_mpa0_energies_eV"))
        middle = int(np.argmin(energies))
        near = slice(max(0, middle - 3), middle + 4)
        if len(volumes[near]) < 7:
            continue
        found = float(fit_equations_of_state(volumes[near], energies[near][None]).volume_a3[0])
        if np.isfinite(found):
            values.append(found / len(symbols))
            wanted.append(cell.volume / len(symbols))
            group.append(cell.chemical_system)
            cells.append(cell)
    features = kept(out / "wbm.npz", lambda: {"x": model.extract(cells).features})["x"]
    x = np.column_stack([np.log(values), features / np.array([len(c.numbers) for c in cells])[:, None]])
    volumes = Table(np.array(values), np.array(wanted), np.array(group), x, np.ones(len(values)))
    with Path(data / "mpa0" / "vacancy_fcc_hcp_78.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["mace_mpa_0_medium_ev"] and row["reference_ev"]]
    value, dft = (np.array([float(r[k]) for r in rows]) for k in ("mace_mpa_0_medium_ev", "reference_ev"))
    names = np.array([r["element"] for r in rows])
    vacancies = Table(value, dft, names, np.log(np.abs(value))[:, None], np.ones(len(value)))
    return {
        "V0 of WBM crystals, MACE-MPA-0 as published": volumes,
        "vacancies of elements, MACE-MPA-0 as published": vacancies,
    }


def statics(data: Path) -> dict[str, Table]:
    """V0 and B0 of ten solids by MACE-MPA-0, as published, too few for a level of 95 %."""
    rows = json.loads((data / "mpa0" / "statics.json").read_text(encoding="utf-8"))
    tables = {}
    for name, key in (("V0", "V0_a3_per_atom"), ("B0", "B0_gpa")):
        mine = "B0_gpa_bm" if name == "B0" else key
        good = [r for r in rows if r.get(mine) and r["reference"].get(key)]
        value, wanted = np.array([r[mine] for r in good]), np.array([r["reference"][key] for r in good])
        group = np.array([f"{r['material']} {r['structure']}" for r in good])
        tables[name] = Table(value, wanted, group, np.log(value)[:, None], np.ones(len(value)))
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/properties"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--trios", type=int, default=1200, help="Crystals of Alexandria at three pressures.")
    parser.add_argument(
        "--write", type=Path, help="Write what ships there: src/mace_bounds/data/properties/mini"
    )
    arguments = parser.parse_args()
    data = arguments.data
    model = load_model(arguments.model, dtype="float64")
    out = arguments.out / model.digest[:12]
    (out / "curves").mkdir(parents=True, exist_ok=True)
    found = curves(data, out, model)
    rows, errors = difference_rows(data, out, model, arguments.trios)
    coefficients = difference_coefficients(rows, errors, model)
    tables, missing = properties(data, found, coefficients.draws(1000), model)
    print(f"{model.digest[:12]}: without a minimum {missing}")
    result = {"model": model.digest, "without_minimum": missing, "properties": {}}
    models = []
    for name, table in (tables | published(data, model, out)).items():
        measured, picked = measure(table)
        error = table.wanted - table.value
        result["properties"][name] = {
            "n": len(error),
            "groups": len(set(table.group.tolist())),
            "mae": float(np.abs(error).mean()),
            "bias": float(error.mean()),
            "chosen": picked,
            "kinds": measured,
        }
        print_measured(name, len(error), float(np.abs(error).mean()), float(error.mean()), measured)
        if name in tables:
            models.append(error_model(*name.rsplit(" of ", 1), table, measured))
    for name, table in statics(data).items():
        measured, _ = measure(table, level=0.8)
        error = table.wanted - table.value
        result["properties"][f"{name} of solids, MACE-MPA-0 as published, level 80 %"] = {
            "n": len(error), "mae": float(np.abs(error).mean()), "bias": float(error.mean()), "kinds": measured,
        }  # fmt: skip
        print_measured(f"{name} of solids at 80 %", len(error), np.abs(error).mean(), error.mean(), measured)
    with atomic(out / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.write is not None:
        arguments.write.mkdir(parents=True, exist_ok=True)
        before = measured_errors(model, arguments.write.parent)
        moduli = () if before is None else tuple(m for m in before.models if m.of == "binaries")
        MeasuredErrors(model.digest, (*models, *moduli), coefficients).save(arguments.write)
        (arguments.write / "study.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
