"""Fit, calibrate and measure the head that ships for ``mini``.

    python scripts/build_mini_head.py --data ../shared/data --work runs/mini-head

Every row that is used comes from a composition that the training of ``mini`` has not seen. First ways to get error bars
are compared on these rows (``compare``; it goes on where it was stopped), on all of them and on the reserved half; the
card shows both. Features take a few minutes of one processor, a fit two, a split of the comparison several.
Settings are the defaults of ``fit`` but for the ellipsoid, without which a fit takes a quarter of the time; single atoms are kept as well, so that the head can grade them. Left out on
purpose: frames of extreme stress, of high temperature or pressure (no use for scoring crystals), and the MP
development set, most of whose labels are of another functional.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mace_bounds import CardNotes, CompareReport, FitConfig, compare, extract, fit, load_model, read
from mace_bounds.benchmark import CompareConfig
from mace_bounds.features import ExtractSettings, FeatureStore
from mace_bounds.structures import Record, composition_keys

FILES = {
    "Materials Project": "mp_entries.json.gz",
    "WBM": "wbm.extxyz.gz",
    "MPtrj": "mptrj_frames.extxyz.gz",
    "Alexandria": "alexandria_frames.extxyz.gz",
}
METHODS = ("constant", "llpr", "quantile", "pops_hypercube", "committee", "mace_bounds")
CONFIG = FitConfig(ellipsoid=False)
UNWANTED = ("alexandria_pressure_P025", "alexandria_pressure_P050", "mattersim_mptrj_highest_stress_1k")
NOTES = (
    "relaxed crystals of the Materials Project, WBM and Alexandria (0 GPa) and random frames of MPtrj; "
    "compositions that the training of mini has not seen"
)
DEVELOPMENT = (
    "Posterior, kinds of scale and the rule that chooses among them, the centre, the conformal layer and the settings of the "
    "grades of novelty were developed on splits of half of these compositions (those whose 64-bit key is even) and on "
    "compositions that mini was trained on. The other half took no part in that and was measured once, at the end "
    "(above). Four older choices (counting compositions in the conformal correction, leaving out MPtrj's frames of "
    "extreme stress, and two that this head no longer uses) were made on compositions held out from the first version of "
    "mini, among them almost all of WBM's. So read all tables here but that of the reserved half as development numbers."
)
HEADER = (
    "| method | 95 % interval score, of that of a constant width | meV/atom | coverage at 90 / 95 / 99 % | mean width at 95 %, meV/atom | rank correlation of width and error |",
    "| --- | --- | --- | --- | --- | --- |",
)
LICENCE = "MIT; data: MIT, CC BY 4.0 and modified BSD, see the card of mini"


def records(data: Path, elements: frozenset[int]) -> Iterator[Record]:
    for source, name in FILES.items():
        for record in read(data / name, elements=elements):
            if record.source not in UNWANTED and record.crystal is not None:
                yield replace(record, source=source)


def reserved_keys(store: FeatureStore) -> np.ndarray:
    """Compositions that nothing was developed on."""
    formulas = store.read().table["formula"]
    keys = composition_keys(formulas[formulas.notna()].unique())
    return keys[keys % np.uint64(2) == 1]


def comparison_text(reports: dict[str, CompareReport]) -> str:
    """Markdown: one line per method, sharpest first."""
    parts = []
    for title, report in reports.items():
        table = report.table[report.table["kind"] == "composition"]
        lines = [f"{title}:", "", *HEADER]
        for row in table.sort_values("interval_score_ratio_mean").to_dict("records"):
            coverage = " / ".join(f"{100 * row[f'coverage_{level}_mean']:.1f}" for level in (90, 95, 99))
            lines.append(
                f"| {row['method']} | {row['interval_score_ratio_mean']:.3f} ± {row['interval_score_ratio_std']:.3f} "
                f"| {row['interval_score_95_mev_per_atom_mean']:.0f} | {coverage} "
                f"| {row['mean_width_95_mev_per_atom_mean']:.0f} | {row['spearman_mean']:.2f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "src/mace_bounds/data/heads/mini"
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--splits", type=int, default=3, help="of the comparison; 0 for none")
    args = parser.parse_args()
    model = load_model(args.model, device="cpu")
    store = extract(
        records(args.data, frozenset(model.atomic_numbers)),
        args.work / "store",
        model,
        ExtractSettings(atoms=True, workers=1),
        progress=lambda done, bad: print(f"{done} rows, {bad} failed", flush=True),
    )
    compared = {
        title: compare(
            store,
            args.work / folder,
            CompareConfig(n_splits=args.splits, methods=METHODS, fit=CONFIG),
            test_keys=keys,
            progress=lambda done, total: print(f"compared on {done} of {total} splits", flush=True),
        )
        for title, folder, keys in (
            (
                "Measured once, on compositions that nothing was developed on",
                "reserved",
                reserved_keys(store),
            ),
            ("On all compositions", "all", None),
        )
        if args.splits
    }
    report = fit(
        store,
        config=CONFIG,
        model=args.model,
        repeats=args.repeats,
        progress=lambda done, total: print(f"fit {done} of {total}", flush=True),
    )
    card = CardNotes(NOTES, LICENCE, DEVELOPMENT, comparison_text(compared))
    report = report.save(args.out, card, overwrite=True)
    print(report.repeats.to_string(index=False))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
