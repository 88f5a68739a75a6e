"""What 20, 40 and 60 labels do to a head that is there: for labels of a source left out, and of its own sources.

    python scripts/calibrate_study.py --store runs/mini-head/store --work runs/calibrate

The store is that of ``scripts/build_mini_head.py``, and heads have no ellipsoid, as the shipped one. A head is fitted
without each source in turn (and without the compositions of that source), and two heads to 60 % of all compositions.
Rows of the model's own training teach the scale, those of a source left out excepted. Labels are drawn at random from the source
left out, or from one source among the other 40 %; shift and factor come from these, and bounds are measured on all
other compositions of the same source. Heads are kept in ``--work``; the priors of
``mace_bounds.calibration.recalibrate`` were chosen with it.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mace_bounds.calibration import (
    MINIMUM_COMPOSITIONS,
    Adjustment,
    FitConfig,
    NewLabels,
    TrainedRows,
    assign_splits,
    fit_adjustment,
    fit_head,
    residual_ev_per_atom,
    usable_rows,
)
from mace_bounds.features import FeatureStore, checked_labels, training_keys
from mace_bounds.metrics import interval_score

LEVELS = (0.68, 0.90, 0.95, 0.99)
SIZES = (20, 40, 60)
CONFIG = FitConfig(ellipsoid=False, kept_rows=0, fit_share=0.7, calibration_share=0.29)
OWN_SPLITS = 2


def heads(store: FeatureStore, work: Path) -> Iterator[tuple[str, dict]]:
    """What a head says of rows that it has not seen: without each source, then without 40 % of the compositions."""
    manifest = store.manifest
    every, keys = checked_labels(store.read()), training_keys(manifest, None, None)
    rows, _ = usable_rows(every, keys)
    trained = TrainedRows.of(every, keys, CONFIG)
    source, formula = (rows.table[name].to_numpy(str) for name in ("source", "formula"))
    held = {name: source == name for name in np.unique(source)}
    for k in range(OWN_SPLITS):
        held[str(k)] = assign_splits(formula, {"made": 0.6, "new": 0.4}, seed=100 + k) == "new"
    for name, out in held.items():
        path = work / f"case_{name.replace(' ', '_')}.pkl"
        if not path.exists():
            made = rows.take(~(out | np.isin(formula, formula[out])))
            taught = trained.without((name,))
            head = fit_head(made, manifest, CONFIG, measure_sources=False, trained=taught).head
            new = rows.take(out)
            said = head.intervals(new)
            case = {
                "fc": said.fold_centre,
                "fs": said.fold_sigma,
                "layer": head.conformal,
                "groups": said.groups,
            }
            case |= {"r": residual_ev_per_atom(new), "formula": formula[out], "source": source[out]}
            path.write_bytes(pickle.dumps(case))
            print(f"fitted without {name}: {len(made.table)} rows, scale {head.scale.describe()}", flush=True)
        yield name, pickle.loads(path.read_bytes())


def draws(case: dict, source: str, n: int, repeats: int, seed: int) -> np.ndarray:
    """Coverage at each level and score at 95 % before and after, with the factor, for each draw of labels."""
    codes = np.unique(case["formula"], return_inverse=True)[1]
    every = NewLabels(case["r"], case["fc"], case["fs"], case["groups"], codes)
    inside = np.flatnonzero(case["source"] == source)
    # where the heads of the folds have other centres, this leaves out that the factor spreads them too
    old = {level: every.bounds(case["layer"], level) for level in LEVELS}
    before = measured(every.error, old)
    rng, out = np.random.default_rng(seed), []
    while len(out) < repeats:
        labels = np.zeros(len(codes), dtype=bool)
        labels[rng.choice(inside, n, replace=False)] = True
        if len(np.unique(codes[labels])) < MINIMUM_COMPOSITIONS:
            continue
        rest = (case["source"] == source) & ~np.isin(codes, codes[labels])
        change = fit_adjustment(every.take(labels), case["layer"])
        new = {level: changed(*old[level], change) for level in LEVELS}
        after = measured(every.error, new)[rest]
        out.append([*before[rest].mean(axis=0), *after.mean(axis=0), change.factor, change.changes])
    return np.array(out)


def changed(low: np.ndarray, high: np.ndarray, change: Adjustment) -> tuple[np.ndarray, np.ndarray]:
    middle, half = 0.5 * (low + high) + change.shift_ev_per_atom, 0.5 * (high - low) * change.factor
    return middle - half, middle + half


def measured(error: np.ndarray, bounds: dict[float, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whether each row is inside at each level, and its interval score at 95 %."""
    inside = [(low <= error) & (error <= high) for low, high in bounds.values()]
    return np.column_stack([*inside, interval_score(error, *bounds[0.95], 0.95)])


def line(title: str, n: int, table: np.ndarray) -> str:
    k = len(LEVELS)
    mean = table.mean(axis=0)
    old, new = (" / ".join(f"{100 * x:.1f}" for x in mean[i : i + k - 1]) for i in (0, k + 1))
    ratio = table[:, 2 * k + 1] / table[:, k]
    spread = 100 * table[:, k + 3].std()
    return (
        f"| {title} | {n} | {old} | {new} (± {spread:.1f}) | {ratio.mean():.3f} | {np.quantile(ratio, 0.9):.3f} "
        f"| {np.median(table[:, -2]):.2f} | {100 * mean[-1]:.0f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--only", choices=("left out", "own"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(
        "| labels of | n | covered before at 68 / 90 / 95 % | after (± over draws, at 95 %) | 95 % score, after / before "
        "| of a tenth of draws, more than | median factor | changed |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    own: dict[tuple[str, int], list[np.ndarray]] = {}
    for name, case in heads(FeatureStore(args.store), args.work):
        sources = np.unique(case["source"])
        if args.only and (args.only == "own") != (len(sources) > 1):
            continue
        for source in sources:
            for n in SIZES:
                table = draws(case, source, n, args.repeats, seed=n)
                if len(sources) == 1:
                    print(line(f"{name}, left out", n, table), flush=True)
                else:
                    own.setdefault((source, n), []).append(table)
    for (source, n), parts in sorted(own.items()):
        print(line(f"{source}, own", n, np.concatenate(parts)), flush=True)


if __name__ == "__main__":
    main()
