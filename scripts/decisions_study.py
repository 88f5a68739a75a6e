"""Do errors cancel as the head says? Differences and hulls on compositions that a head has not seen.

    python scripts/decisions_study.py --store runs/mini-head/store --model mini --work runs/decisions --splits 10 \\
        --references elements.json

For every split: coverage and 95 % interval score of polymorph differences and reactions among the test rows by the head's
joint errors, by quadrature of the single bounds, by the same made conformal, and by one constant; with ``--volumes``
also of crystals at two volumes, and of all pairs of one composition, each once; then P(stable) of
the test rows in three chemical systems among all labelled entries, with its Brier score beside that of the base rate
and of a probit with one width. A split takes one to two minutes of one processor; fits and tables are kept in the work
folder, so that a run goes on where it was stopped, and one with fewer splits is part of one with more.
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
from mace_bounds.calibration import FitResult, fit_head, split_rows, usable_rows
from mace_bounds.decisions import (
    POLYMORPH,
    REACTION,
    STRAINED,
    joint_bytes,
    log_volumes,
    measured_groups,
    with_strained,
)
from mace_bounds.decisions.choosing import DifferenceScores
from mace_bounds.decisions.groups import Differences, Strained, polymorph_pairs
from mace_bounds.decisions.joint import difference_std
from mace_bounds.decisions.kept import left_out_errors
from mace_bounds.features import FeatureRows, FeatureStore, checked_labels, training_keys
from mace_bounds.structures import read_element_energies

SYSTEMS = ("Fe-Li-O-P", "Cl-Mn-Na-O-Y", "Ba-O-Ti")
LEVELS = (0.9, 0.95)
SOURCE = "Materials Project"


def fitted(args: argparse.Namespace, rows: FeatureRows, seed: int) -> FitResult:
    """The fit of one split, from the work folder where it is there (only this script's own pickles are read)."""
    path = args.work / f"fit{seed}.pkl"
    store = FeatureStore(args.store)
    seen = training_keys(store.manifest, args.model, None)
    if path.is_file():
        result = pickle.loads(path.read_bytes())
    else:
        config = FitConfig(seed=seed, ellipsoid=False)  # as the head that ships
        result = fit_head(rows, store.manifest, config, training_keys=seen, measure_sources=False)
        half = path.with_suffix(".tmp")
        half.write_bytes(pickle.dumps(result))
        half.replace(path)
    config = FitConfig(seed=seed, references=args.references)
    head = replace(result.head, beside=joint_bytes(result, config, rows), training_compositions=seen)
    if args.volumes is not None:
        head = replace(head, beside=with_strained(head, config, read_volumes(args)))
    return replace(result, head=head)


def row_sums(
    error: np.ndarray, half: np.ndarray, level: float, group: Differences, about: dict[str, object]
) -> list[dict[str, object]]:
    """Sums over the differences of each composition: every pair alike, and every structure alike."""
    outside = np.maximum(np.abs(error) - half, 0)
    one, score = np.ones(len(group)), 1000 * (2 * half + 2 / (1 - level) * outside)
    table = pd.DataFrame({"composition": group.clusters})
    for count, weights in (("pairs", one), ("structures", group.weights)):
        table[f"{count}_weight"] = weights
        table[f"{count}_covered"] = weights * (outside <= 0)
        table[f"{count}_score"] = weights * score
    sums = table.groupby("composition", as_index=False).sum()
    return sums.assign(level=level, **about).to_dict("records")


def summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Coverage and interval score of every method, and its score over that of the method itself: 95 % by bootstrap.

    Compositions are drawn, each with what it has in all splits.
    """
    out = []
    random = np.random.default_rng(seed)
    for (kind, level), part in table.groupby(["kind", "level"]):
        names = part["composition"].unique()
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
        for count in ("pairs", "structures", "compositions"):
            own = None
            for method, rows in part.groupby("method", sort=False):
                sums = rows.groupby("composition").sum(numeric_only=True).reindex(names, fill_value=0.0)
                weight, covered, score = (
                    sums[f"{'pairs' if count == 'compositions' else count}_{x}"].to_numpy()
                    for x in ("weight", "covered", "score")
                )
                if count == "compositions":  # each once in every split that it is tested in
                    n = rows.groupby("composition").size().reindex(names, fill_value=0).to_numpy()
                    weight, covered, score = n, covered * n / weight, score * n / weight
                own = score if own is None else own
                ratio = (drawn @ own) / (drawn @ score)
                out.append(
                    {
                        "kind": kind, "level": level, "count": count, "method": method, "compositions": len(names),
                        "differences": int(sums["pairs_weight"].sum()),
                        "coverage": covered.sum() / weight.sum(), "score_mev": score.sum() / weight.sum(),
                        "this_over_it": own.sum() / score.sum(),
                        "from": np.quantile(ratio, 0.025), "to": np.quantile(ratio, 0.975),
                    }
                )  # fmt: skip
    return pd.DataFrame(out)


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


def read_volumes(args: argparse.Namespace) -> FeatureRows:
    return FeatureRows.join([checked_labels(FeatureStore(path).read()) for path in args.volumes])


def with_volumes(result: FitResult, volumes: FeatureRows, config: FitConfig) -> FitResult:
    """The same fit, among whose rows are crystals at other volumes, of compositions of its fit or its test."""
    usable, _ = usable_rows(volumes, result.head.training_compositions)
    others = result.rows.take(~result.rows.table["id"].isin(usable.table["id"]).to_numpy())
    rows = FeatureRows.join([others, usable])
    return replace(result, rows=rows, splits=split_rows(rows.table["formula"].to_numpy(str), config))


def volume_rows(whole: FitResult, predictor: BoundsPredictor, config: FitConfig) -> list[dict[str, object]]:
    """As :func:`difference_rows`, for crystals at two volumes and for all pairs of one composition, each once."""
    left_out, test = left_out_errors(whole, config), whole.rows.take(whole.splits == "test")
    assert left_out is not None
    fit = whole.rows.take(whole.splits == "fit")
    known, tested = (pairs_by_crystal(rows.table.reset_index(drop=True)) for rows in (fit, test))
    out: list[dict[str, object]] = []
    for level in LEVELS:
        found = predictor.decision_rows(test, level)
        off = found.dft_ev_per_atom - found.model_ev_per_atom - found.joint.marginals.middle
        lower, upper = found.bounds
        halves, raws, alone, errors = {}, {}, {}, {}
        for kind, group in tested.items():
            scores, strain = found.model.scores[kind], None
            if kind == STRAINED:
                ends = group.coefficients.indices.reshape(-1, 2)
                strain = np.abs(found.log_volume[ends[:, 0]] - found.log_volume[ends[:, 1]])
            halves[kind] = scores.half_width(level) * scores.widths(found.joint, group.coefficients, strain)
            raws[kind] = np.sqrt(group.coefficients.power(2) @ np.square(0.5 * (upper - lower)))
            alone[kind] = found.joint.independent_std(group.coefficients)
            errors[kind] = group.coefficients @ off
        as_polymorphs = found.model.scores[POLYMORPH].half_width(level)
        for name, kinds in (("one crystal", (STRAINED,)), ("one composition", (STRAINED, POLYMORPH))):
            calibration = Differences.join([known[kind] for kind in kinds])
            if len(kinds) > 1:  # each pair once
                calibration = replace(calibration, weights=np.ones(len(calibration)))
            size = np.abs(calibration.coefficients @ left_out.error)
            none = np.zeros((len(left_out.std), 0))
            quadrature = difference_std(calibration.coefficients, left_out.std, none)
            group = Differences.join([tested[kind] for kind in kinds])
            apart = np.concatenate([alone[kind] for kind in kinds])
            constant = DifferenceScores.of(size, calibration).half_width(level)
            methods = {
                "joint": np.concatenate([halves[kind] for kind in kinds]),
                "quadrature": np.concatenate([raws[kind] for kind in kinds]),
                "conformal quadrature": DifferenceScores.of(size / quadrature, calibration).half_width(level)
                * apart,
                "constant": np.full(len(group), constant),
                "as polymorphs": as_polymorphs * apart,
            }
            error = np.concatenate([errors[kind] for kind in kinds])
            for method, half in methods.items():
                about = {"seed": config.seed, "kind": name, "method": method}
                out += row_sums(error, half, level, group, about)
    return out


def pairs_by_crystal(table: pd.DataFrame) -> dict[str, Differences]:
    """Pairs of one composition: of one crystal, by its id (``agm1`` and ``agm1@25GPa``), and others."""
    crystals = table["id"].str.partition("@")[0].to_numpy(str)
    strained = Strained(crystals, log_volumes(table))
    formulas, hashes = table["formula"].tolist(), table["structure_hash"].tolist()
    return {
        STRAINED: strained.pairs(formulas),
        POLYMORPH: polymorph_pairs(formulas, hashes, strained),
    }


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


def one_split(args: argparse.Namespace, rows: FeatureRows, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences and hulls of one split."""
    result = fitted(args, rows, seed)
    predictor = BoundsPredictor(args.model, head=result.head)
    differences = difference_rows(result, predictor, seed) + formation_rows(result, predictor, seed)
    if args.volumes is not None:
        config = FitConfig(seed=seed)
        whole = with_volumes(result, read_volumes(args), config)
        differences += volume_rows(whole, predictor, config)
    hulls = pd.DataFrame({"id": []})
    if args.draws:
        settings = HullSettings(energies="dft", n_draws=args.draws, seed=seed)
        hulls = hull_rows(result, predictor, rows, settings, dict(args.references or ()))
    print(f"split {seed} done: {predictor.joint_model}", flush=True)
    return pd.DataFrame(differences), hulls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument(
        "--volumes", type=Path, nargs="+", help="stores of crystals at several volumes, with space groups"
    )
    parser.add_argument("--draws", type=int, default=500, help="of hulls; 0 for no hulls")
    parser.add_argument("--references", type=read_element_energies, help="JSON of eV/atom by element")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = checked_labels(FeatureStore(args.store).read())
    differences, hulls = list[pd.DataFrame](), list[pd.DataFrame]()
    for seed in range(args.splits):
        paths = args.work / f"differences{seed}.csv", args.work / f"hulls{seed}.csv"
        if not all(path.is_file() for path in paths):
            for path, part in zip(paths, one_split(args, rows, seed), strict=True):
                part.to_csv(path, index=False)
        differences.append(pd.read_csv(paths[0]))
        if args.draws:
            hulls.append(pd.read_csv(paths[1]))
    table = pd.concat(differences, ignore_index=True)
    print(summary(table).round(3).to_string(index=False))
    if hulls:
        probability_report(pd.concat(hulls, ignore_index=True))


if __name__ == "__main__":
    main()
