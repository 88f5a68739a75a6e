"""Compare the fit of a head, and prediction with bounds, with the authors' popsregression, side by side in one run.

    python scripts/bench_head.py [--rounds 3] [--rows 1000 10000 100000 150000] [--columns 145 256] [--out FILE.json]
    python scripts/bench_head.py --quick

Every measurement has a process of its own with one BLAS thread, and rounds interleave the contestants, so that noise on a
shared machine hits all alike. Times are medians over rounds, in CPU seconds of the one thread (wall seconds beside them: the
same on an idle machine), ratios medians of those in each round. The rows (see ``bench_head_data``)
are float64, made once and read by all. Ours is measured with the rows in memory, as the reference needs them, and with the
rows on disk, read anew in each of its passes: that is the one the ratios of the last line are for, time and memory alike.
Memory is the peak of resident memory over what the process had after its imports (and with the test rows in hand), so the
training rows count where they are held. The reference's prediction holds one number for each pair of a test and a training row;
where that exceeds ``--reference-mb``, it gets the test rows in batches that do not.

Then one fit of float32 rows on disk under a limit of memory, counting the whole process with its imports; and whether
factors of eight workers give the same head however they are merged. The last line is one JSON object: ratios reference/ours
at the largest size, and the peak of the fit from disk in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench_head_data import RowFile
from bench_head_merge import merge_study
from bench_team import run_json

WHO = {
    "reference": "popsregression",
    "ours": "mace-bounds, rows in memory",
    "ours-disk": "mace-bounds, rows on disk",
}
LIMIT_MB = 300
TITLES = [
    "N",
    "P",
    "",
    "fit CPU s (wall)",
    "fit MB",
    "of it rows",
    "predict CPU s (wall)",
    "fit ×",
    "memory ×",
    "predict ×",
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 150_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[145, 256])
    parser.add_argument("--test-rows", type=int, default=10_000, help="rows to predict")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference-mb", type=float, default=3000.0, help="for one call of its prediction")
    parser.add_argument("--disk-rows", type=int, default=1_000_000, help="rows of the fit from disk")
    parser.add_argument(
        "--groupings", type=int, default=20, help="ways to merge the factors of eight workers"
    )
    parser.add_argument("--folder", type=Path, help="where to put the rows, 1 GB (default: the system's)")
    parser.add_argument("--out", type=Path, help="write every measurement here, as JSON")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run?")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.columns, args.test_rows, args.rounds = [4_000], [12], 500, 1
        args.disk_rows, args.groupings, args.reference_mb = 20_000, 3, 8.0
    return args


def measure(who: str, rows: RowFile, n: int, *test: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    words = [who, str(rows.folder), rows.dtype, str(n), str(rows.columns), *test]
    answer: dict[str, Any] = run_json("bench_head_worker.py", *words)[0]
    return answer


def run_rounds(p: int, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All sizes with ``p`` columns; who starts changes from round to round."""
    train, test = RowFile(folder / "train", p), RowFile(folder / "test", p)
    train.write(max(args.rows), seed=0)
    test.write(args.test_rows, seed=1)
    turns: dict[tuple[int, str], list[dict[str, Any]]] = {(n, who): [] for n in args.rows for who in WHO}
    for k in range(args.rounds):
        for n in args.rows:
            for who in list(WHO)[k % len(WHO) :] + list(WHO)[: k % len(WHO)]:
                answer = measure(who, train, n, str(test.folder), str(args.test_rows), str(args.reference_mb))
                turns[n, who].append(answer)
    return [
        {"n": n, "p": p, "who": who, "turns": turns[n, who], **summary(turns[n, who], turns[n, "reference"])}
        for n, who in turns
    ]


def summary(turns: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, float]:
    """Medians, and medians of the ratios to the reference in the same round."""
    names = [name for name in turns[0] if name != "batch_rows"]
    out = {name: median(turn[name] for turn in turns) for name in names}
    for name in ("fit_cpu_s", "fit_mb", "predict_cpu_s"):
        pairs = zip(reference, turns, strict=True)
        out[name + "_ratio"] = median(theirs[name] / max(turn[name], 1e-9) for theirs, turn in pairs)
    return out


def print_table(results: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(TITLES) + " |\n|" + "--:|" * 2 + "---|" + "--:|" * (len(TITLES) - 3))
    for r in results:
        cells = [f"{r['n']:,}", f"{r['p']}", WHO[r["who"]]]
        cells += [f"{r['fit_cpu_s']:.3g} ({r['fit_s']:.3g})", f"{r['fit_mb']:.0f}", f"{r['data_mb']:.0f}"]
        cells += [f"{r['predict_cpu_s']:.3g} ({r['predict_s']:.3g})"]
        ratios = [r["fit_cpu_s_ratio"], r["fit_mb_ratio"], r["predict_cpu_s_ratio"]]
        cells += ["" if r["who"] == "reference" else f"{ratio:.3g}" for ratio in ratios]
        print("| " + " | ".join(cells) + " |", flush=True)


def batches(results: list[dict[str, Any]], n_test: int) -> str:
    """Say where the reference could not predict in one call."""
    sizes = {r["n"]: r["turns"][0]["batch_rows"] for r in results if r["who"] == "reference"}
    cut = [f"{size:,} at N = {n:,}" for n, size in sizes.items() if size < n_test]
    return f"popsregression's test rows per call: {', '.join(cut) or 'all'}"


def main() -> None:
    """Run everything."""
    args = arguments()
    print(
        f"popsregression {version('popsregression')}, numpy {version('numpy')}, scikit-learn {version('scikit-learn')}; "
        f"one BLAS thread, {args.rounds} rounds, {args.test_rows:,} rows predicted, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    results: list[dict[str, Any]] = []
    for p in args.columns:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            results += run_rounds(p, Path(folder), args)
    print_table(results)
    print(batches(results, args.test_rows))
    largest = max(args.columns)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = RowFile(Path(folder) / "rows", largest, "float32")
        rows.write(args.disk_rows, seed=2)
        disk = measure("ours-disk", rows, args.disk_rows)
    print(
        f"{args.disk_rows:,} × {largest} float32 rows on disk: fit {disk['fit_cpu_s']:.0f} CPU s ({disk['fit_s']:.0f}), the whole process with its imports "
        f"{disk['process_mb']:.0f} MB (limit {LIMIT_MB}; imports {disk['start_mb']:.0f})"
    )
    merge = merge_study(min(args.columns), blocks=4, groupings=args.groupings)
    print(
        f"factors of 8 workers in {args.groupings} random groupings: heads differ by {merge:.1e} (limit 1e-9)"
    )
    head = next(r for r in reversed(results) if r["who"] == "ours-disk")
    last = {
        "fit_time_ratio": head["fit_cpu_s_ratio"],
        "fit_memory_ratio": head["fit_mb_ratio"],
        "predict_time_ratio": head["predict_cpu_s_ratio"],
        "fit_1e6_mb": disk["process_mb"],
    }
    if args.out:
        args.out.write_text(json.dumps({"results": results, "disk": disk, "merge": merge, **last}, indent=1))
    print(json.dumps({name: round(value, 1) for name, value in last.items()}))


if __name__ == "__main__":
    main()
