"""Do errors cancel as the head says? Differences and hulls on compositions that a head has not seen.

    python scripts/decisions_study.py --store runs/mini-head/store --model mini --work runs/decisions --splits 10

For every split: coverage and 95 % interval score of polymorph differences and reactions among the test rows by the head's
joint errors, by quadrature of the single bounds, by the same made conformal, and by one constant; then P(stable) of
the test rows in three chemical systems among all labelled entries, with its Brier score beside that of the base rate
and of a probit with one width. Fits are kept in the work folder, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr

from mace_bounds import BoundsPredictor, FitConfig
from mace_bounds.bounds import HullSettings
from mace_bounds.calibration import FitResult, fit_head
from mace_bounds.decisions import POLYMORPH, REACTION, joint_bytes, measured_groups
from mace_bounds.features import FeatureRows, FeatureStore, checked_labels, training_keys

SYSTEMS = ("Fe-Li-O-P", "Cl-Mn-Na-O-Y", "Ba-O-Ti")
LEVELS = (0.9, 0.95)
SOURCE = "Materials Project"


def fitted(args: argparse.Namespace, rows: FeatureRows, seed: int) -> FitResult:
    """The fit of one split, from the work folder where it is there (only this script's own pickles are read)."""
    path = args.work / f"fit{seed}.pkl"
    if path.is_file():
        result = pickle.loads(path.read_bytes())
        if not hasattr(result.head, "beside"):
            object.__setattr__(result.head, "beside", {})
    else:
        store = FeatureStore(args.store)
        seen = training_keys(store.manifest, args.model, None)
        result = fit_head(rows, store.manifest, FitConfig(seed=seed), training_keys=seen)
        path.write_bytes(pickle.dumps(result))
    head = replace(result.head, beside=joint_bytes(result, FitConfig(seed=seed), rows))
    return replace(result, head=head)


def interval_scores(error: np.ndarray, half: np.ndarray, level: float) -> np.ndarray:
    return 2 * half + 2 / (1 - level) * np.maximum(np.abs(error) - half, 0)


def difference_rows(result: FitResult, predictor: BoundsPredictor, seed: int) -> list[dict[str, object]]:
    """One row for each method, kind and level: sums over the differences of the test rows."""
    config = FitConfig(seed=seed)
    test = result.rows.take(result.splits == "test")
    by_kind = measured_groups(result, config)
    out: list[dict[str, object]] = []
    for kind in (POLYMORPH, REACTION):
        known = by_kind.get(kind)
        if known is None:
            continue
        for level in LEVELS:
            found = predictor.decision_rows(test, level)
            group = known.test
            error = group.coefficients @ (
                found.dft_ev_per_atom - found.model_ev_per_atom - found.joint.marginals.middle
            )
            lower, upper = found.bounds
            raw = np.sqrt(group.coefficients.power(2) @ np.square(0.5 * (upper - lower)))
            halves = {
                "joint": found.model.scores[kind].half_width(level) * found.joint.std(group.coefficients),
                "quadrature": raw,
                "conformal quadrature": known.independent.half_width(level)
                * found.joint.independent_std(group.coefficients),
                "constant": np.full(len(error), known.constant.half_width(level)),
            }
            for method, half in halves.items():
                for count, weights in (("pairs", np.ones(len(error))), ("structures", group.weights)):
                    out.append(
                        {
                            "seed": seed,
                            "kind": kind,
                            "level": level,
                            "method": method,
                            "count": count,
                            "weight": weights.sum(),
                            "covered": float(weights @ (np.abs(error) <= half)),
                            "score_mev": 1000 * float(weights @ interval_scores(error, half, level)),
                            "compositions": len(np.unique(group.clusters)),
                        }
                    )
    return out


def hull_rows(
    result: FitResult, predictor: BoundsPredictor, rows: FeatureRows, seed: int, draws: int
) -> pd.DataFrame:
    """P(stable) and truth of the test rows of each system, against all labelled entries of the system."""
    entries = rows.take(((rows.table["source"] == SOURCE) & rows.table["energy_ev"].notna()).to_numpy())
    tested = set(result.rows.take(result.splits == "test").table["id"])
    parts = []
    for system in SYSTEMS:
        symbols = set(system.split("-"))
        inside = entries.table["chemical_system"].map(lambda s, known=symbols: set(s.split("-")) <= known)
        phases = entries.take(inside.to_numpy())
        candidates = phases.take(phases.table["id"].isin(tested).to_numpy())
        if not len(candidates.table):
            continue
        settings = HullSettings(energies="dft", n_draws=draws, seed=seed)
        table = predictor.hull(candidates, phases, settings).table
        error = (candidates.table["energy_ev"] - candidates.table["energy_model_ev"]) / candidates.table[
            "n_atoms"
        ]
        shift = dict(zip(candidates.table["id"], error, strict=True))
        centre = predictor.decision_rows(candidates).joint.marginals.middle
        centre_of = dict(zip(candidates.table["id"], centre, strict=True))
        table = table[table["reason"].isna()]
        truth = [
            e + shift[i] - centre_of[i]
            for i, e in zip(table["id"], table["e_above_hull_ev_per_atom"], strict=True)
        ]
        parts.append(table.assign(true_ev_per_atom=truth, system=system, seed=seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def probability_report(table: pd.DataFrame) -> None:
    """Brier scores and reliability of P(stable) and P(within 50 and 100 meV/atom)."""
    for name, limit in (("p_stable", 1e-9), ("p_within_50mev", 0.05), ("p_within_100mev", 0.1)):
        happened = (table["true_ev_per_atom"] <= limit).to_numpy()
        p, guess = table[name].to_numpy(), table["e_above_hull_ev_per_atom"].to_numpy()
        width = np.std(table["true_ev_per_atom"] - guess)
        brier = {
            "this": np.mean((p - happened) ** 2),
            "base rate": np.mean((happened.mean() - happened) ** 2),
            "probit, one width": np.mean((ndtr((limit - guess) / width) - happened) ** 2),
        }
        print(name, len(p), "cases,", ", ".join(f"{k} {v:.4f}" for k, v in brier.items()))
        for low in np.arange(0, 1, 0.1):
            picked = (p >= low) & ((p < low + 0.1) | (low > 0.85))
            if picked.any():
                print(
                    f"  {low:.1f}-{low + 0.1:.1f}: {picked.sum()} cases, said {p[picked].mean():.3f}, was {happened[picked].mean():.3f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--draws", type=int, default=500)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = checked_labels(FeatureStore(args.store).read())
    differences: list[dict[str, object]] = []
    hulls: list[pd.DataFrame] = []
    for seed in range(args.splits):
        result = fitted(args, rows, seed)
        predictor = BoundsPredictor(args.model, head=result.head)
        differences += difference_rows(result, predictor, seed)
        hulls.append(hull_rows(result, predictor, rows, seed, args.draws))
        print(f"split {seed} done: {predictor.joint_model}", flush=True)
    table = pd.DataFrame(differences)
    table.to_csv(args.work / "differences.csv", index=False)
    grouped = table.groupby(["kind", "level", "count", "method"])[
        ["weight", "covered", "score_mev", "compositions"]
    ].sum()
    grouped["coverage"] = grouped["covered"] / grouped["weight"]
    grouped["interval_score_mev"] = grouped["score_mev"] / grouped["weight"]
    print(grouped[["coverage", "interval_score_mev", "compositions"]].round(3).to_string())
    stable = pd.concat(hulls, ignore_index=True)
    stable.to_csv(args.work / "hulls.csv", index=False)
    probability_report(stable)


if __name__ == "__main__":
    main()
