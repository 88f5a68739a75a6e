"""Planted faults: shifted labels among real entries, and how many of them lead the list of suspects.

python scripts/planted_labels.py mp_entries.json.gz out.json --seeds 3

For each seed, 20 random labels are shifted by 0.3 to 2 eV/atom, up or down; the heads are fitted to the labels with the
faults among them (``audit --cross-fit``). Real entries hold odd labels of their own, which take places in the list too:
the first audit, of the labels as they are, shows these.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mace_bounds import FitConfig, extract, load_model, read
from mace_bounds.audit._cross_fit import cross_fitted
from mace_bounds.audit._measured import labelled
from mace_bounds.audit._suspects import suspect_table
from mace_bounds.features import FeatureRows

N_PLANTED, FIRST, LEAST, MOST = 20, 30, 0.3, 2.0


def shifted(rows, seed):
    """Rows with 20 labels shifted, and the shifts by id, eV/atom."""
    rng = np.random.default_rng(seed)
    at = rng.choice(len(rows.table), N_PLANTED, replace=False)
    shift = rng.uniform(LEAST, MOST, N_PLANTED) * rng.choice([-1.0, 1.0], N_PLANTED)
    energy = rows.table["energy_ev"].to_numpy(dtype=float).copy()
    energy[at] += shift * rows.table["n_atoms"].to_numpy()[at]
    planted = dict(zip(rows.table["id"].iloc[at], shift, strict=True))
    return FeatureRows(rows.table.assign(energy_ev=energy), rows.features), planted


def suspects(rows, manifest, config):
    """The list, as ``audit --cross-fit`` makes it."""
    made = cross_fitted(rows, manifest, config)
    table = made.detailed_table(rows, made.full.levels[-1], None)
    per_atom = rows.features / rows.table["n_atoms"].to_numpy(dtype=float)[:, None]
    return suspect_table(labelled(table, made.full.levels, suspect=True), per_atom)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = extract(read(args.entries), Path(folder) / "store", load_model("mini"))
        rows, manifest = store.read().labelled(), store.manifest
    natural = suspects(rows, manifest, FitConfig())["id"].tolist()
    print(f"{len(natural)} suspects among {len(rows.table)} labels as they are", flush=True)
    found = []
    for seed in range(args.seeds):
        faulty, planted = shifted(rows, seed)
        listed = suspects(faulty, manifest, replace(FitConfig(), seed=seed))
        hits = listed["id"].isin(planted).to_numpy()
        others = listed[~hits.astype(bool)]["id"]
        known = ~listed["id"].isin(set(natural[:FIRST]) - set(planted)).to_numpy()
        found.append({
            "seed": seed, "in_first_30": int(hits[:FIRST].sum()), "in_list": int(hits.sum()), "listed": len(listed),
            "in_first_30_of_the_new": int(hits[known][:FIRST].sum()),
            "others_in_first_30_suspect_before": int(others[others.index < FIRST].isin(natural).sum()),
            "missed_ev": sorted(round(s, 2) for i, s in planted.items() if i not in set(listed["id"][:FIRST])),
            "likely_label": int((listed["likely"][hits] == "label").sum()),
        })  # fmt: skip
        print(json.dumps(found[-1]), flush=True)
        args.out.write_text(json.dumps({"natural": natural, "seeds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
