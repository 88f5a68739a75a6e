"""Planted faults: shifted labels among real ones, and how many of them lead the list of suspects.

python scripts/planted_labels.py mp_entries.json.gz out.json --seeds 30 --refit 5

For each seed, 20 random labels are shifted by 0.3 to 2 eV/atom, up or down. For the first ``--refit`` seeds the heads are
fitted to the labels with the faults among them, as ``audit --cross-fit`` does; for the others, predictions and widths of
the labels as they are stay, which takes seconds in place of a minute. The refitted seeds are measured both ways, so
that one sees what the short cut does. Real sources hold odd labels of their own, which take places in the list too.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from mace_bounds import FitConfig, extract, load_model, read
from mace_bounds.auditing import per_atom, suspect_table
from mace_bounds.features import FeatureRows
from mace_bounds.fitting import Measured, cross_fitted, labelled

N_PLANTED, FIRST, LEAST, MOST, WANTED = 20, 30, 0.3, 2.0, 18


def drawn(n_rows, seed):
    """Rows to plant a fault in, and the shifts, eV/atom."""
    rng = np.random.default_rng(seed)
    at = rng.choice(n_rows, N_PLANTED, replace=False)
    return at, rng.uniform(LEAST, MOST, N_PLANTED) * rng.choice([-1.0, 1.0], N_PLANTED)


def refitted(rows, manifest, seed, at=(), shift=()):
    """Labelled rows as ``audit --cross-fit`` bounds them, some labels shifted before."""
    energy = rows.table["energy_ev"].to_numpy(dtype=float).copy()
    at = np.asarray(at, dtype=int)
    energy[at] += np.asarray(shift) * rows.table["n_atoms"].to_numpy()[at]
    faulty = FeatureRows(rows.table.assign(energy_ev=energy), rows.features)
    made = cross_fitted(faulty, manifest, replace(FitConfig(), seed=seed))
    table = made.detailed_table(faulty, made.full.levels[-1])
    return labelled(table, made.full.levels, suspect=True)


def shifted(measured, at, shift):
    """Labelled rows with some labels shifted and the bounds of before."""
    error = measured.table["error_mev_per_atom"].to_numpy(dtype=float).copy()
    error[at] += 1000.0 * shift
    table = measured.table.assign(error_mev_per_atom=error).drop(columns="covered_above_level")
    return Measured(table, measured.levels)


def outcome(listed, planted, natural):
    """What became of the planted faults, as plain values."""
    hits = listed["id"].isin(planted).to_numpy(dtype=bool)
    first = listed.index.to_numpy() < FIRST
    new = ~listed["id"].isin(set(natural[:FIRST]) - set(planted)).to_numpy(dtype=bool)
    return {
        "in_first_30": int((hits & first).sum()), "in_list": int(hits.sum()), "listed": len(listed),
        "in_first_30_of_the_new": int(hits[new][:FIRST].sum()),
        "others_in_first_30_suspect_before": int(listed["id"][first & ~hits].isin(natural).sum()),
        "missed_ev": sorted(round(float(s), 2) for i, s in planted.items() if i not in set(listed["id"][first])),
        "likely_of_planted": Counter(listed["likely"][hits]), "likely_of_others": Counter(listed["likely"][~hits]),
        "likely_of_others_in_first_30": Counter(listed["likely"][first & ~hits]),
    }  # fmt: skip


def told(name, results):
    """Print the distribution over the draws."""
    found = np.array([r["in_first_30"] for r in results])
    likely = sum((r["likely_of_planted"] for r in results), Counter())
    print(f"{name}: {len(found)} draws, mean {found.mean():.2f}, {dict(sorted(Counter(found.tolist()).items()))}, "
          f"{WANTED} or more in {np.mean(found >= WANTED):.0%}, planted faults likely {dict(likely)}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="labelled structures")
    parser.add_argument("out", type=Path)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--refit", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = extract(read(args.source), Path(folder) / "store", load_model("mini"))
        rows, manifest = store.read().labelled(), store.manifest
    where = per_atom([rows], np.ones(len(rows.table), dtype=bool))
    before = refitted(rows, manifest, FitConfig().seed)
    natural = suspect_table(before, *where)["id"].tolist()
    print(f"{len(natural)} suspects among {len(rows.table)} labels as they are", flush=True)
    found = {"heads kept": [], "heads refitted": []}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        at, shift = drawn(len(rows.table), seed)
        planted = dict(zip(rows.table["id"].iloc[at], shift, strict=True))
        ways = {"heads kept": shifted(before, at, shift)}
        if seed < args.first_seed + args.refit:
            ways["heads refitted"] = refitted(rows, manifest, seed, at, shift)
        for way, measured in ways.items():
            found[way].append({"seed": seed, **outcome(suspect_table(measured, *where), planted, natural)})
            print(way, json.dumps(found[way][-1]), flush=True)
        args.out.write_text(json.dumps({"natural": natural, **found}, indent=1) + "\n")
    for way, results in found.items():
        if results:
            told(way, results)


if __name__ == "__main__":
    main()
