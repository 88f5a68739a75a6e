"""How far bulk and shear moduli of a model are from DFT, and which widths rank these errors.

    python scripts/elastic_study.py --data ../shared/data --out runs/elastic --model mini

Binaries of the Materials Project with Voigt-Reuss-Hill moduli (PBE, spin-polarised), cells of up to ``--atoms`` atoms,
ions relaxed, measured as ``mace-bounds propagate elastic`` does. Widths are those of ``property_errors.py``, chosen and
tried on chemical systems that took no part. One line a crystal is kept in ``--out``, so that a run goes on where it was
stopped; ``--write`` puts what was found beside the other errors that the package ships.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mace_bounds._io import atomic
from mace_bounds.backbones import load_model
from mace_bounds.errors import MaceBoundsError
from mace_bounds.propagation import (
    MeasuredErrors,
    Potential,
    elastic_curves,
    hill_averages,
    measured_errors,
)
from mace_bounds.propagation.measured import SHIPPED
from mace_bounds.structures import compositions_in
from property_errors import Table, error_model, measure, print_measured
from property_rows import F_ELEMENTS, MAGNETIC, crystal, lines

N_DRAWS = 300
REFERENCE = "DFT values of binaries of the Materials Project with stable lattices"


def moduli(cell, potential) -> dict:
    """K and G by the mean and their spread over stable draws; why there are none where there are none."""
    try:
        found = elastic_curves(cell, potential)
    except MaceBoundsError as error:
        return {"reason": str(error)}
    constants = np.where(found.stable[:, None, None], found.constants_gpa, np.nan)
    bulk, shear = hill_averages(constants)
    out = {"stable": bool(found.stable[0]), "failed": float(np.isnan(bulk[1:]).mean())}
    out |= {"force_ev_a": found.largest_force_ev_a, "deviatoric_gpa": found.deviatoric_gpa}
    good = np.isfinite(bulk[1:])
    if out["stable"] and good.sum() > 20:
        out |= {"k": float(bulk[0]), "g": float(shear[0])}
        out |= {"k_std": float(np.std(bulk[1:][good])), "g_std": float(np.std(shear[1:][good]))}
    return out


def measured_rows(data: Path, out: Path, model, arguments) -> list[dict]:
    """Moduli of crystals in the order of their ids' hashes, as many as time allows; kept line by line."""
    path = out / "moduli.jsonl"
    done = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except ValueError:
                continue  # a line that a stopped run left half written
            done[row["id"]] = row
    errors = measured_errors(model, arguments.errors)
    if errors is None:
        raise SystemExit("no draws for this model: run property_study.py --write first")
    potential = Potential.of(model, errors.coefficients, N_DRAWS)
    rows = lines(data / "properties" / "mp_binary_pbe_elasticity.jsonl.gz")
    rows = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    known, began = set(model.atomic_numbers), time.process_time()
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            cell = crystal(row)
            if row["id"] in done or len(cell.numbers) > arguments.atoms or not set(cell.counts) <= known:
                continue
            if time.process_time() - began > arguments.seconds:
                break
            found = moduli(cell, potential)
            found |= {"id": row["id"], "formula": cell.formula, "system": cell.chemical_system}
            found |= {"k_dft": row["bulk_modulus_vrh_gpa"], "g_dft": row["shear_modulus_vrh_gpa"]}
            block = model.extract([cell])
            found |= {"n": len(cell.numbers), "features": (block.features[0] / len(cell.numbers)).tolist()}
            done[row["id"]] = found
            file.write(json.dumps(found) + "\n")
            file.flush()
    return list(done.values())


def table_of(rows: list[dict], key: str) -> Table:
    inputs = [[np.log(max(row["k"], 1.0)), np.log(max(row["g"], 1.0)), *row["features"]] for row in rows]
    columns = ([row[name] for row in rows] for name in (key, f"{key}_dft", "system"))
    value, wanted, group = (np.array(column) for column in columns)
    return Table(value, wanted, group, np.array(inputs), np.array([row[f"{key}_std"] for row in rows]))


def trained_on(formulas: list[str], model) -> np.ndarray:
    """Which compositions the model's own training has seen."""
    return compositions_in(formulas, model.training_compositions)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/elastic"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--errors", type=Path, default=SHIPPED, help="Folder above the measured errors.")
    parser.add_argument("--atoms", type=int, default=6, help="Largest cell.")
    parser.add_argument("--seconds", type=float, default=1500.0, help="Of the processor, for new crystals.")
    parser.add_argument(
        "--write", type=Path, help="Add to the errors in src/mace_bounds/data/properties/mini"
    )
    arguments = parser.parse_args()
    model = load_model(arguments.model, dtype="float64")
    out = arguments.out / model.digest[:12]
    out.mkdir(parents=True, exist_ok=True)
    rows = measured_rows(arguments.data, out, model, arguments)
    good = [row for row in rows if "k" in row]
    seen = trained_on([row["formula"] for row in good], model)
    magnetic = np.array(
        [bool(set(row["system"].split("-")) & (MAGNETIC - {"O"} | F_ELEMENTS)) for row in good]
    )
    result = {
        "model": model.digest, "measured": len(rows), "unstable": sum(row.get("stable") is False for row in rows),
        "no_minimum": sum("reason" in row for row in rows), "stable": len(good), "compositions_trained_on": int(seen.sum()),
    }  # fmt: skip
    print(json.dumps(result))
    models = []
    for key, name in (("k", "K_VRH"), ("g", "G_VRH")):
        table = table_of(good, key)
        measured, picked = measure(table)
        error = table.wanted - table.value
        about = {"n": len(error), "mae": float(np.abs(error).mean()), "bias": float(error.mean())}
        about |= {"median": float(np.median(np.abs(error))), "chosen": picked, "kinds": measured}
        for part, rows_of in (("trained on", seen), ("not trained on", ~seen), ("magnetic", magnetic)):
            about[f"mae, {part}"] = float(np.abs(error[rows_of]).mean())
        print_measured(f"{name} of binaries", len(error), about["mae"], about["bias"], measured)
        print({k: v for k, v in about.items() if k.startswith("mae")}, picked)
        model_of = error_model(
            name, "binaries", table, measured, reference=REFERENCE, groups_are="chemical systems"
        )
        models.append(model_of)
        print(json.dumps(asdict(model_of)))
        result[name] = about
    with atomic(out / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.write is not None:
        before = measured_errors(model, arguments.write.parent)
        kept_models = tuple(m for m in before.models if m.of != "binaries")
        MeasuredErrors(model.digest, (*kept_models, *models), before.coefficients).save(arguments.write)
        (arguments.write / "moduli.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
