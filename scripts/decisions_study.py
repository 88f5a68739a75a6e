"""Do errors cancel as the head says? Differences and hulls on compositions that a head has not seen.

    python scripts/decisions_study.py --store runs/mini-head/store --model mini --work runs/decisions --splits 10 \\
        --references elements.json

For every split: coverage and 95 % interval score of polymorph differences and reactions among the test rows by the head's
joint errors, by quadrature of the single bounds, by the same made conformal, and by one constant; then P(stable) of
the test rows in three chemical systems among all labelled entries, with its Brier score beside that of the base rate
and of a probit with one width. A fit takes two minutes of one processor; fits are kept in the work folder, so that a run
goes on where it was stopped, and one with fewer splits is part of one with more.
"""

from __future__ import annotations

import argparse
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import atomic_numbers
from scipy.sparse import csr_matrix
from scipy.special import ndtr

from mace_bounds import BoundsPredictor, FitConfig
from mace_bounds.bounds import HullSettings
from mace_bounds.calibration import FitResult, fit_head
from mace_bounds.decisions import POLYMORPH, REACTION, joint_bytes, measured_groups
from mace_bounds.decisions.choosing import DifferenceScores
from mace_bounds.decisions.groups import Differences
from mace_bounds.decisions.kept import left_out_errors
from mace_bounds.features import FeatureRows, FeatureStore, checked_labels, training_keys
from mace_bounds.structures import read_element_energies

SYSTEMS = ("Fe-Li-O-P", "Cl-Mn-Na-O-Y", "Ba-O-Ti")
LEVELS = (0.9, 0.95)
SOURCE = "Materials Project"


def fitted(args: argparse.Namespace, rows: FeatureRows, seed: int) -> FitResult:
    """The fit of one split, from the work folder where it is there (only this script's own pickles are read)."""
    path = args.work / f"fit{seed}.pkl"
    if path.is_file():
        result = pickle.loads(path.read_bytes())
    else:
        store = FeatureStore(args.store)
        seen = training_keys(store.manifest, args.model, None)
        result = fit_head(
            rows, store.manifest, FitConfig(seed=seed), training_keys=seen, measure_sources=False
        )
        half = path.with_suffix(".tmp")
        half.write_bytes(pickle.dumps(result))
        half.replace(path)
    config = FitConfig(seed=seed, references=args.references)
    head = replace(result.head, beside=joint_bytes(result, config, rows))
    return replace(result, head=head)


def row_sums(
    error: np.ndarray, half: np.ndarray, level: float, group: Differences, about: dict[str, object]
) -> list[dict[str, object]]:
    """Sums over differences: each alike, every structure of a composition alike, every composition alike."""
    _, code, n = np.unique(group.clusters, return_inverse=True, return_counts=True)
    counts = {"pairs": np.ones(len(group)), "structures": group.weights, "compositions": 1.0 / n[code]}
    outside = np.maximum(np.abs(error) - half, 0)
    score = 2 * half + 2 / (1 - level) * outside
    return [
        {
            **about,
            "level": level,
            "count": count,
            "weight": weights.sum(),
            "covered": float(weights @ (outside <= 0)),
            "score_mev": 1000 * float(weights @ score),
            "compositions": len(n),
        }
        for count, weights in counts.items()
    ]


def formation_rows(result: FitResult, predictor: BoundsPredictor, seed: int) -> list[dict[str, object]]:
    """The same for formation energies, whose references have no error: intervals of single structures."""
    test, left_out = result.rows.take(result.splits == "test"), left_out_errors(result, FitConfig(seed=seed))
    assert left_out is not None
    each = [
        Differences(csr_matrix((len(names), 1)), names, np.ones(len(names)))
        for names in (left_out.formulas, test.table["formula"].to_numpy(str))
    ]
    constant = DifferenceScores.of(np.abs(left_out.error), each[0])
    out: list[dict[str, object]] = []
    for level in LEVELS:
        found = predictor.decision_rows(test, level)
        error = found.dft_ev_per_atom - found.model_ev_per_atom
        lower, upper = found.bounds
        ways = {
            "joint": (error - 0.5 * (upper + lower), 0.5 * (upper - lower)),
            "constant": (
                error - found.joint.marginals.middle,
                np.full(len(error), constant.half_width(level)),
            ),
        }
        for method, (off, half) in ways.items():
            out += row_sums(off, half, level, each[1], {"seed": seed, "kind": "formation", "method": method})
    return out


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
            scores = found.model.scores[kind]
            group = known.test
            error = group.coefficients @ (
                found.dft_ev_per_atom - found.model_ev_per_atom - found.joint.marginals.middle
            )
            lower, upper = found.bounds
            raw = np.sqrt(group.coefficients.power(2) @ np.square(0.5 * (upper - lower)))
            halves = {
                "joint": scores.half_width(level) * scores.widths(found.joint, group.coefficients),
                "quadrature": raw,
                "conformal quadrature": known.independent.half_width(level)
                * found.joint.independent_std(group.coefficients),
                "constant": np.full(len(error), known.constant.half_width(level)),
            }
            for method, half in halves.items():
                out += row_sums(error, half, level, group, {"seed": seed, "kind": kind, "method": method})
    return out


def with_elements(phases: FeatureRows, symbols: set[str], references: dict[str, float]) -> FeatureRows:
    """Phases, and a row with the given energy for each element that has none (its features are of no use)."""
    missing = [
        s for s in sorted(symbols & references.keys()) if not (phases.table["chemical_system"] == s).any()
    ]
    if not missing:
        return phases
    n = len(missing)
    energies = [references[symbol] for symbol in missing]
    table = pd.concat([phases.table.iloc[:1]] * n, ignore_index=True).assign(
        id=missing, formula=missing, chemical_system=missing, structure_hash=missing, n_atoms=1,
        energy_ev=energies, energy_model_ev=energies, run_type="GGA", flags=[[]] * n,
        elements=[np.array([atomic_numbers[s]], dtype=np.int32) for s in missing],
        counts=[np.ones(1, dtype=np.int32)] * n,
    )  # fmt: skip
    features = np.concatenate([phases.features, np.repeat(phases.features[:1], n, axis=0)])
    return FeatureRows(pd.concat([phases.table, table], ignore_index=True), features)


def hull_rows(
    result: FitResult,
    predictor: BoundsPredictor,
    rows: FeatureRows,
    settings: HullSettings,
    references: dict[str, float],
) -> pd.DataFrame:
    """P(stable) and truth of the test rows of each system, against all labelled entries of the system."""
    entries = rows.take(((rows.table["source"] == SOURCE) & rows.table["energy_ev"].notna()).to_numpy())
    tested = set(result.rows.take(result.splits == "test").table["id"])
    parts = []
    for system in SYSTEMS:
        symbols = set(system.split("-"))
        inside = entries.table["chemical_system"].map(lambda s, known=symbols: set(s.split("-")) <= known)
        phases = with_elements(entries.take(inside.to_numpy()), symbols, references)
        candidates = phases.take(phases.table["id"].isin(tested).to_numpy())
        if not len(candidates.table):
            continue
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
        parts.append(table.assign(true_ev_per_atom=truth, system=system, seed=settings.seed))
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
    parser.add_argument("--references", type=read_element_energies, help="JSON of eV/atom by element")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = checked_labels(FeatureStore(args.store).read())
    differences: list[dict[str, object]] = []
    hulls: list[pd.DataFrame] = []
    for seed in range(args.splits):
        result = fitted(args, rows, seed)
        predictor = BoundsPredictor(args.model, head=result.head)
        differences += difference_rows(result, predictor, seed) + formation_rows(result, predictor, seed)
        settings = HullSettings(energies="dft", n_draws=args.draws, seed=seed)
        hulls.append(hull_rows(result, predictor, rows, settings, dict(args.references or ())))
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
