"""How bounds hold on a source that no label came from: every way that was tried, its price and its gain.

    python scripts/source_study.py --data ../shared/data --work runs/source-study

Rows are those of ``scripts/build_mini_head.py`` (compositions that the training of the model has not seen). Each of the
four sources is left out in turn: heads are fitted and calibrated on the three others (CV+ heads of five folds, as in
``fit``) and measured on the rows of the one left out whose compositions the others do not have. Beside it stands what
the same method does on compositions left out, all four sources being there. Predictions are kept in ``--work``, so that
a method more costs seconds.

Price and gain are both 95 % interval scores over that of one constant width (pooled, calibrated on the same sources).
POPS heads have no ellipsoid, as the shipped one. ``--store`` takes a feature store that is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build_mini_head import records
from mace_bounds import FitConfig, extract, load_model
from mace_bounds.calibration import (
    TrainedRows,
    conformal_quantile,
    cross_fit,
    fit_scale,
    group_folds,
    head_inputs,
    residual_ev_per_atom,
    scale_inputs,
    select_centre,
    usable_rows,
)
from mace_bounds.calibration.cross_fitting import fit_one, rows_of
from mace_bounds.calibration.fit import outer_folds
from mace_bounds.features import ExtractSettings, FeatureStore, checked_labels, training_keys
from mace_bounds.head import PopsPrediction, predict
from mace_bounds.metrics import interval_score
from mace_bounds.threads import one_blas_thread

Array = NDArray[np.float64]
LEVELS = (0.90, 0.95, 0.99)
CONFIG = FitConfig(ellipsoid=False)
QUANTILE_FOLDS = 10
NEIGHBOURS, LIKENESS = (
    5,
    0.5,
)  # of the distance to the model's training; width of likeness, in median distances


class Study:
    """Labelled rows, and heads of any of their sources."""

    def __init__(self, store: FeatureStore, model: str, work: Path) -> None:
        every = checked_labels(store.read())
        keys = training_keys(store.manifest, model, None)
        rows, _ = usable_rows(every, keys)
        self.trained = TrainedRows.of(every, keys, CONFIG)  # of the model's own training
        rows = rows.take(np.argsort(rows.table["id"].to_numpy(dtype=str), kind="stable"))
        self.work, self.design, self.y = work, head_inputs(rows, composition=True), residual_ev_per_atom(rows)
        self.formula = rows.table["formula"].to_numpy(str)
        self.names, self.source = np.unique(rows.table["source"].to_numpy(str), return_inverse=True)
        self.fold = outer_folds(self.formula, CONFIG)
        self.points = _standardised(self.design.features, self.design.features)
        # distance to what the model was trained on: of the rows in the store, those of its compositions
        trained = self.trained.design.features
        self.from_training = _nearest(self.points, _standardised(trained, self.design.features))

    @one_blas_thread
    def head(self, left: tuple[int, ...], fold: int | None, kind: str, strength: float) -> dict[str, Array]:
        """Centre and σ of every row by a head without sources and a fold; of its own rows by heads of inner folds."""
        name = f"d{''.join(map(str, left))}_e_k{'' if fold is None else fold}"
        path = self.work / "heads" / f"{name}_{kind}_{strength}.npz"
        if not path.is_file():
            m = ~np.isin(self.source, left) & (self.fold != (-1 if fold is None else fold))
            trained = self.trained.without(tuple(str(self.names[k]) for k in left))
            parts, out = self._pops(name, m, trained), ~m
            w, groups, y = np.ones(m.sum()), self.formula[m], self.y[m]
            centre, expected = select_centre(y, parts["in"].mean, self.design.fractions[m], groups, 0, w)
            of_training = trained.errors(parts["trained"], centre)
            inputs = replace(scale_inputs(parts["in"], self.design.take(m)), trained=of_training)
            scale = fit_scale(kind, inputs, y - expected, groups, 0, w, strength=strength)
            values = {name: np.full(len(m), np.nan) for name in ("centre", "sigma")}
            values["centre"][m], values["sigma"][m] = expected, scale.sigma(inputs)
            if out.any():
                values["centre"][out] = centre.residual(parts["out"].mean, self.design.fractions[out])
                values["sigma"][out] = scale.sigma(scale_inputs(parts["out"], self.design.take(out)))
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, mask=m, **values)
        return dict(np.load(path))

    def _pops(self, name: str, m: NDArray[np.bool_], trained: TrainedRows) -> dict[str, PopsPrediction]:
        """What POPS heads say of rows: their own and those of the model's training, cross-fitted, and of the others.

        Kept for the next kind of scale.
        """
        path = self.work / "pops" / f"{name}.npz"
        if not path.is_file():
            x, y, w = self.design.x[m], self.y[m], np.ones(m.sum())
            crossed = cross_fit(x, y, w, self.formula[m], CONFIG, (trained.design.x, trained.groups))
            parts = {"in": rows_of(crossed, slice(len(y))), "trained": rows_of(crossed, slice(len(y), None))}
            if (~m).any():
                parts["out"] = predict(fit_one(x, y, w, CONFIG).head, self.design.x[~m])
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{f"{k}.{n}": v for k, p in parts.items() for n, v in p.__dict__.items()})
        arrays = dict(np.load(path))
        return {
            part: PopsPrediction(
                **{k.split(".")[1]: v for k, v in arrays.items() if k.startswith(f"{part}.")}
            )
            for part in ("in", "trained", "out")
            if any(k.startswith(f"{part}.") for k in arrays)
        }


@dataclass(frozen=True)
class Fitted:
    """A method without some sources: errors and widths of rows that calibrate, and of rows that measure."""

    rows: NDArray[np.int64]  # that calibrate
    error: Array
    width: Array
    new: NDArray[np.int64]  # that measure; those that calibrate themselves where no source is left out
    new_error: Array
    new_width: Array
    # by source: errors and widths of the head that has not seen it
    apart: dict[int, tuple[Array, Array]]


def fitted(
    study: Study, left: tuple[int, ...], width: Callable[..., Array], kind: str, strength: float
) -> Fitted:
    """Bring the heads of the folds together; ``width`` makes a width of σ over its mean, and of rows."""
    rows = np.flatnonzero(~np.isin(study.source, left))
    heads = [study.head(left, k, kind, strength) for k in range(CONFIG.n_folds)]
    means = [np.exp(np.log(head["sigma"][head["mask"]]).mean()) for head in heads]
    sigma = np.stack([head["sigma"] / mean for head, mean in zip(heads, means, strict=True)])
    centre, of = np.stack([head["centre"] for head in heads]), study.fold[rows]
    new = np.flatnonzero(np.isin(study.source, left) & ~np.isin(study.formula, study.formula[rows]))
    apart = {}
    for source in sorted(set(study.source[rows].tolist())):
        head = study.head(tuple(sorted((*left, source))), None, kind, strength)
        of_it = rows[study.source[rows] == source]
        mean = np.exp(np.log(head["sigma"][head["mask"]]).mean())
        error = study.y[of_it] - head["centre"][of_it]
        apart[source] = (error, width(head["sigma"][of_it] / mean, of_it))
    error, own = study.y[rows] - centre[of, rows], width(sigma[of, rows], rows)
    if not left:
        return Fitted(rows, error, own, rows, error, own, apart)
    said = width(np.exp(np.log(sigma[:, new]).mean(axis=0)), new)
    return Fitted(rows, error, own, new, study.y[new] - centre[:, new].mean(axis=0), said, apart)


def half_widths(study: Study, method: Fitted, pooling: str, level: float) -> Array:
    """Half-widths of the rows that measure, by the way in which scores are brought together."""
    z, source = np.abs(method.error) / method.width, study.source[method.rows]
    room = len(method.rows) / len(np.unique(study.formula[method.rows]))

    def worst(parts: list[Array]) -> float:
        return max(min(conformal_quantile(part, level, None, room), float(part.max())) for part in parts)

    if pooling == "likeness":
        return _local(study, method, z, level) * method.new_width
    if pooling == "worst source left out":
        q = worst([np.abs(error) / width for error, width in method.apart.values()])
    elif pooling == "worst source":
        q = worst([z[source == s] for s in np.unique(source)])
    elif pooling == "own source":
        # of the rows' own source where it is known; elsewhere the widest
        own = {s: worst([z[source == s]]) for s in np.unique(source)}
        widest = max(own.values())
        return np.array([own.get(s, widest) for s in study.source[method.new]]) * method.new_width
    else:
        counts = np.bincount(source, minlength=len(study.names))
        w = 1.0 / counts[source] if pooling == "balanced" else np.ones(len(z))
        q = conformal_quantile(z, level, w, room * float(w.mean()))
    return np.asarray(q * method.new_width)


def left_out_half_widths(study: Study, method: Fitted, pooling: str, level: float) -> Array:
    """The same where no source is left out: quantiles of a row come from other compositions."""
    folds, out = group_folds(study.formula[method.rows], QUANTILE_FOLDS, 1), np.empty(len(method.rows))
    for fold in range(QUANTILE_FOLDS):
        held = folds == fold
        part = replace(
            method,
            rows=method.rows[~held],
            error=method.error[~held],
            width=method.width[~held],
            new=method.new[held],
            new_error=method.new_error[held],
            new_width=method.new_width[held],
        )
        out[held] = half_widths(study, part, pooling, level)
    return out


def _local(study: Study, method: Fitted, z: Array, level: float) -> Array:
    """Quantiles of scores weighted by likeness of features (localised conformal: Guan, Biometrika 110, 33 (2023))."""
    points = study.points
    between = np.sqrt(_square(points[method.new], points[method.rows]))
    unit = LIKENESS * float(np.median(between))
    out = np.empty(len(method.new))
    for i, row in enumerate(between):
        w = np.exp(-0.5 * (row / unit) ** 2) * (study.formula[method.rows] != study.formula[method.new[i]])
        q = conformal_quantile(z, level, w + 1e-12, float((w**2).sum() / w.sum()))
        out[i] = min(q, float(z.max()))
    return out


def line(
    study: Study, title: str, width: Callable[..., Array], pooling: str, kind: str, strength: float = 1.0
) -> str:
    """A line of the table in Markdown."""
    n = len(study.names)
    covered, own, flat = [], [], []
    for left in [*((k,) for k in range(n)), ()]:
        method = fitted(study, left, width, kind, strength)
        constant = fitted(study, left, lambda _, rows: np.ones(len(rows)), "constant", 1.0)
        widths = half_widths if left else left_out_half_widths
        half, ends = (widths(study, m, p, 0.95) for m, p in ((method, pooling), (constant, "pooled")))
        own.append(interval_score(method.new_error, -half, half, 0.95))
        flat.append(interval_score(constant.new_error, -ends, ends, 0.95))
        covered.append(100 * np.mean(np.abs(method.new_error) <= half))
    halves = {level: left_out_half_widths(study, method, pooling, level) for level in LEVELS}
    inside = [100 * np.mean(np.abs(method.new_error) <= halves[level]) for level in LEVELS]
    by = [100 * np.mean((np.abs(method.new_error) <= halves[0.95])[study.source == s]) for s in range(n)]
    gain = np.mean([x.mean() for x in own[:-1]]) / np.mean([x.mean() for x in flat[:-1]])
    cells = [f"{x:.1f}" for x in covered[:-1]] + [f"{gain:.2f}"]
    cells += [" / ".join(f"{x:.1f}" for x in inside), f"{min(by):.1f} to {max(by):.1f}"]
    cells += [f"{own[-1].mean() / flat[-1].mean():.3f}"]
    return f"| {title} | {' | '.join(cells)} |"


def _standardised(features: Array, of: Array) -> Array:
    spread = of.std(axis=0)
    return np.clip((features - of.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf), -6, 6)


def _square(a: Array, b: Array) -> Array:
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def _nearest(points: Array, others: Array) -> Array:
    near = [
        np.sort(_square(points[k : k + 200], others), axis=1)[:, :NEIGHBOURS]
        for k in range(0, len(points), 200)
    ]
    distance = np.sqrt(np.concatenate(near)).mean(axis=1)
    return np.asarray(np.maximum(distance / np.median(distance), 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--store", type=Path, help="features with labels; made in --work by default")
    args = parser.parse_args()
    if args.store is None and not (args.work / "store").is_dir():
        model = load_model(args.model, device="cpu")
        rows = records(args.data, frozenset(model.atomic_numbers))
        extract(rows, args.work / "store", model, ExtractSettings(workers=1))
    study = Study(FeatureStore(args.store or args.work / "store"), args.model, args.work)
    names = [*study.names, "score", "compositions left out: 90 / 95 / 99 %", "by source at 95", "score"]
    print(f"| method | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}", flush=True)

    def power(gamma: float) -> Callable[..., Array]:
        return lambda sigma, _: sigma**gamma

    def added(share: float) -> Callable[..., Array]:
        return lambda sigma, _: sigma + share

    def far(gamma: float, slope: float) -> Callable[..., Array]:
        return lambda sigma, rows: sigma**gamma * study.from_training[rows] ** slope

    poolings = ("pooled", "balanced", "worst source", "worst source left out", "own source")
    flat = power(0.0)
    lines = [("one constant width", flat, p, "constant") for p in poolings]
    for kind, gammas in (
        ("pops", (1.0,)),
        ("kernel", (1.0, 0.75, 0.5)),
        ("training_kernel", (1.0, 0.75, 0.5)),
    ):
        lines += [(f"{kind}, γ = {g:g}", power(g), p, kind) for g in gammas for p in poolings]
    lines += [("kernel, γ = 0.75", power(0.75), "likeness", "kernel")]
    lines += [("kernel + its mean", added(1.0), p, "kernel") for p in ("balanced", "worst source")]
    lines += [
        (
            f"kernel, γ = 0.75, × distance to the model's training to the power {slope:g}",
            far(0.75, slope),
            p,
            "kernel",
        )
        for slope in (0.25, 0.5)
        for p in ("pooled", "worst source")
    ]
    for title, width, pooling, kind in lines:
        print(line(study, f"{title}; {pooling}", width, pooling, kind), flush=True)
    for pooling in ("balanced", "worst source"):
        print(line(study, f"kernel, ridge × 10; {pooling}", power(1.0), pooling, "kernel", 10.0), flush=True)


if __name__ == "__main__":
    main()
