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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mace_bounds._io import atomic
from mace_bounds.backbones import load_model
from mace_bounds.propagation import (
    ErrorModel,
    MeasuredErrors,
    fit_equations_of_state,
    measured_errors,
)
from property_rows import (
    all_electron,
    crystal,
    curves,
    difference_coefficients,
    difference_rows,
    kept,
    lines,
)

LEAST_WIDTH = 0.1
LEVELS = (0.68, 0.90, 0.95, 0.99)
KINDS = ("constant", "share of the value", "features", "propagation", "propagation and value")


@dataclass
class Table:
    """Errors of one property: value of the model, reference, group of each row, and what widths are made of."""

    value: np.ndarray
    wanted: np.ndarray
    group: np.ndarray
    inputs: np.ndarray  # shape (n, p): for the regression
    spread: np.ndarray  # std over draws
    positive: bool = True  # whether errors are a share of the value


def folds(groups, n=5, seed=0):
    names = sorted(set(groups.tolist()))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[k]: i % n for i, k in enumerate(order)}
    return np.array([fold_of[g] for g in groups.tolist()])


def ridge(x, y, strength):
    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.where(std > 1e-9, std, np.inf)
    z = (x - mean) / std
    w = np.linalg.solve(z.T @ z + strength * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    middle = float(y.mean())
    return lambda q: (q - mean) / std @ w + middle


def widths(kind: str, table: Table, train, test):
    """σ of the test rows by a kind, learnt from the training rows; none below a tenth of their median."""
    both = raw_widths(kind, table, train, train | test)
    least = LEAST_WIDTH * np.median(both[train[train | test]])
    return np.maximum(both[test[train | test]], least)


def raw_widths(kind: str, table: Table, train, test):
    error = np.abs(table.wanted - table.value)
    floor = 0.05 * np.median(error[train])
    size = np.abs(table.value) if table.positive else np.full(len(error), np.median(error[train]))
    if kind == "constant":
        return np.ones(test.sum())
    if kind == "share of the value":
        return size[test]
    if kind == "propagation":
        return np.maximum(table.spread[test], 0.05 * np.median(table.spread[train]))
    logs = [np.log(size + 1e-9), np.log(np.maximum(table.spread, 0.05 * np.median(table.spread[train])))]
    x = np.column_stack([*logs, table.inputs] if kind == "features" else logs)
    if kind == "features":
        x = np.delete(x, 1, axis=1)
    target = np.log(np.maximum(error, floor))
    return np.exp(ridge(x[train], target[train], 0.3 if kind == "features" else 0.01)(x[test]))


def centre(table: Table, train, test):
    """Middle of the intervals of the test rows: the value times (or plus) the median error of the training rows."""
    if table.positive:
        return table.value[test] * np.median(table.wanted[train] / table.value[train])
    return table.value[test] + np.median((table.wanted - table.value)[train])


def quantile(scores, level):
    n = len(scores)
    k = int(np.ceil((n + 1) * level))
    return np.sort(scores)[min(k, n) - 1]


def cross_scores(kind, table, rows):
    """Left-out scores |error| / σ of rows, five folds of groups, and the centred errors with their σ."""
    part = np.flatnonzero(rows)
    fold = folds(table.group[part], seed=1)
    error, sigma = np.empty(len(part)), np.empty(len(part))
    for f in range(5):
        train, test = np.zeros(len(table.value), bool), np.zeros(len(table.value), bool)
        train[part[fold != f]], test[part[fold == f]] = True, True
        error[fold == f] = table.wanted[test] - centre(table, train, test)
        sigma[fold == f] = widths(kind, table, train, test)
    return error, sigma


def interval_score(error, half, level):
    return float(np.mean(2 * half + 2 / (1 - level) * np.maximum(np.abs(error) - half, 0)))


def better(best: str, scores: dict[str, float], n: int) -> str:
    """The best kind where it is so by 3 per cent and on 100 rows; else a constant, which cannot be chosen by luck."""
    return best if n >= 100 and scores[best] < 0.97 * scores["constant"] else "constant"


def measure(table: Table, level=0.95, repeats=6):
    """Coverage and interval score of every kind and of the chosen one on left-out groups."""
    found = {kind: [] for kind in (*KINDS, "chosen")}
    picked = []
    for repeat in range(repeats):
        fold = folds(table.group, seed=100 + repeat)
        for f in range(5):
            train, test = fold != f, fold == f
            inner = {}
            error = table.wanted[test] - centre(table, train, test)
            for kind in KINDS:
                e, s = cross_scores(kind, table, train)
                q = quantile(np.abs(e) / s, level)
                inner[kind] = interval_score(e, q * s, level)
                half = q * widths(kind, table, train, test)
                found[kind].append((np.abs(error) <= half, error, half))
            best = min(inner, key=inner.get)
            best = better(best, inner, train.sum())
            picked.append(best)
            found["chosen"].append(found[best][-1])
    out = {}
    for kind, parts in found.items():
        inside, error, half = (np.concatenate(p) for p in zip(*parts, strict=True))
        out[kind] = {
            "coverage": float(inside.mean()),
            "interval_score": interval_score(error, half, level),
            "median_half_width": float(np.median(half)),
            "spearman": float(spearman(np.abs(error), half)) if kind != "constant" else 0.0,
        }
    base = out["constant"]["interval_score"]
    for row in out.values():
        row["of_constant"] = row["interval_score"] / base
    return out, {k: picked.count(k) / len(picked) for k in set(picked)}


def spearman(a, b):
    from scipy.stats import spearmanr

    return spearmanr(a, b).statistic if np.ptp(b) > 0 else 0.0


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


def error_model(name: str, of: str, table: Table, measured: dict, **about: str) -> ErrorModel:
    """What ships for one property: the kind of the best interval score among left-out rows, fitted to all rows."""
    every = np.ones(len(table.value), bool)
    scores = {kind: cross_scores(kind, table, every) for kind in KINDS if kind != "features"}
    judged = {k: interval_score(e, quantile(np.abs(e) / w, 0.95) * w, 0.95) for k, (e, w) in scores.items()}
    best = min(judged, key=judged.get)
    best = better(best, judged, len(table.value))
    error, sigma = scores[best]
    least = 0.05 * float(np.median(table.spread))
    weights = {
        "constant": (0.0, 0.0, 0.0),
        "share of the value": (0.0, 1.0, 0.0),
        "propagation": (0.0, 0.0, 1.0),
    }
    if best not in weights:
        weights[best] = log_weights(table, least)
    if table.positive:
        shift = float(np.median(table.wanted / table.value))
    else:
        shift = float(np.median(table.wanted - table.value))
    every_width = widths(best, table, every, every)
    return ErrorModel(
        name=name,
        of=of,
        positive=table.positive,
        shift=shift,
        log_weights=weights[best],
        least_spread=least,
        least_width=float(LEAST_WIDTH * np.median(every_width)),
        quantiles={f"{level:g}": float(quantile(np.abs(error) / sigma, level)) for level in LEVELS},
        n=len(error),
        groups=len(set(table.group.tolist())),
        coverage=measured["chosen"]["coverage"],
        of_constant=measured["chosen"]["of_constant"],
        **about,
    )


def log_weights(table: Table, least: float) -> tuple[float, float, float]:
    """The regression of :func:`widths` on value and spread as plain weights."""
    error = np.abs(table.wanted - table.value)
    size = np.abs(table.value) if table.positive else np.full(len(error), np.median(error))
    x = np.column_stack([np.log(size + 1e-9), np.log(np.maximum(table.spread, least))])
    fitted = ridge(x, np.log(np.maximum(error, 0.05 * np.median(error))), 0.01)
    a, ab, ac = (float(fitted(np.array([q]))[0]) for q in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
    if not table.positive:  # one size for all: it belongs to the constant
        return a + (ab - a) * float(x[0, 0]), 0.0, ac - a
    return a, ab - a, ac - a


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


def print_measured(name: str, n: int, mae: float, bias: float, measured: dict) -> None:
    print(f"{name}: {n} rows, MAE {mae:.3g}, bias {bias:+.3g}")
    for kind, row in measured.items():
        print(
            f"   {kind:24s} covered {row['coverage']:.3f}  interval score {row['interval_score']:.4g}"
            f" ({row['of_constant']:.3f})  half-width {row['median_half_width']:.3g}  rho {row['spearman']:.2f}"
        )


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
