"""Which widths rank errors of properties, measured on groups that took no part, and what of them ships."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mace_bounds.propagation import ErrorModel

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


def print_measured(name: str, n: int, mae: float, bias: float, measured: dict) -> None:
    print(f"{name}: {n} rows, MAE {mae:.3g}, bias {bias:+.3g}")
    for kind, row in measured.items():
        print(
            f"   {kind:24s} covered {row['coverage']:.3f}  interval score {row['interval_score']:.4g}"
            f" ({row['of_constant']:.3f})  half-width {row['median_half_width']:.3g}  rho {row['spearman']:.2f}"
        )


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


def spearman(a, b):
    from scipy.stats import spearmanr

    return spearmanr(a, b).statistic if np.ptp(b) > 0 else 0.0
