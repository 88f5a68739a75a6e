"""Check that the installed mace-bounds gives the numbers that commit a1ef88a gave, before the code was rebuilt.

    python scripts/same_numbers.py DATA [--reference FOLDER] [--heads mini hypercube ...] [--loose]

DATA is the file of 1,516 Materials Project entries (``mp_entries.json.gz``). Its float64 features of ``mini`` are
extracted, heads are fitted to them, and the shipped head and the fitted ones audit them, all through the command line.
A number x of a table is compared with its reference r by |x - r| / max(1, |r|): absolute below 1, relative above,
energies in eV, errors and bounds in meV/atom; the limit is 1e-9. Summaries are rounded to six digits, their limit is
2e-6. Changed on purpose: the expected error (once the mean of the refit head, now
the centre of the interval) is compared with the recorded centre, and the refit energy is no column any more.

Exit code 1 if anything differs. It takes five minutes, nearly all for the fits; ``--heads mini`` takes one.

The scale of a head is fitted by iteration: features changed by 1e-15, or another kernel of OpenBLAS, moved bounds of
fitted heads by 2e-5 in the old code; the kernel also changed which of equivalent atoms is the novel one. ``--loose``
is for another processor or order of sums: fitted bounds and summaries to 1e-4, the novel atom not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# What was called so in the reference, and what it may be called now; names of columns, of values and in summaries.
RENAMED = {
    "energy_mace_ev": "energy_model_ev",
    "coverage": "level",  # of the table of bounds; that of coverage.csv keeps its name
    "nominal": "level",  # of coverage.csv and of summaries
    "backbone": "model_training",
    "mace_mae_mev_per_atom": "model_mae_mev_per_atom",
    "mace_median_mev_per_atom": "model_median_mev_per_atom",
}
FITS: dict[str, list[str]] = {
    "hypercube": [],
    "ensemble": ["--posterior", "ensemble"],
    "ellipsoid": ["--posterior", "ellipsoid"],
    "split": ["--conformal", "split"],
    "signed": ["--signed"],
    "groups": ["--groups", "all"],
}
HEADS, LEVELS = ("mini", *FITS), (0.95, 0.68, 0.9, 0.99)
EXACT, ROUNDED, LOOSE = 1e-9, 2e-6, 1e-4


class Checks:
    """Prints a line for each comparison and counts those that differ."""

    def __init__(self, *, loose: bool) -> None:
        self.loose, self.failed = loose, 0

    def line(self, name: str, text: str, same: bool) -> None:
        """Say how one quantity did."""
        self.failed += not same
        print(f"{name:58s} {text:>24s}  {'ok' if same else 'DIFFERS'}", flush=True)

    def numbers(self, name: str, got: Any, want: Any, limit: float = EXACT) -> None:
        """Compare numbers; NaN is the same as NaN, and infinite is the deviation of other shapes or gaps."""
        got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
        alike = got.shape == want.shape and np.array_equal(np.isnan(got), np.isnan(want))
        deviation = np.abs(got - want) / np.maximum(1.0, np.abs(want)) if alike else np.inf
        largest = float(np.nanmax(deviation, initial=0.0))
        self.line(name, f"{largest:.1e}", largest <= limit)

    def words(self, name: str, got: list[Any], want: list[Any]) -> None:
        """Compare texts."""
        wrong = sum(a != b for a, b in zip(got, want, strict=True)) if len(got) == len(want) else len(want)
        self.line(name, f"{wrong} of {len(want)} rows", wrong == 0)


def command(*words: str | Path) -> str:
    """Standard output of one mace-bounds command, run by this interpreter."""
    call = [sys.executable, "-c", "from mace_bounds.cli import main; main()", *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"mace-bounds {' '.join(map(str, words))}\n{done.stderr.strip()}")
    return done.stdout


def make_head(name: str, store: Path, work: Path) -> tuple[str, dict[str, Any]]:
    """What ``audit --head`` takes for a head, and what its fit printed; the shipped head is not fitted."""
    if name not in FITS:
        return name, {}
    out = work / f"head_{name}"
    printed = json.loads(
        command("fit", store, out, "--include-training", "--seed", "0", "--json", *FITS[name])
    )
    return str(out), {key: printed[key] for key in ("rows", "left_out", "coverage", "metrics")}


def by_id(file: Path) -> pd.DataFrame:
    """Rows in the order of their ids."""
    return pd.read_parquet(file).set_index("id").sort_index()


def column(table: pd.DataFrame, name: str) -> pd.Series | None:
    """A column under its old name or its new one."""
    return table.get(name if name in table else RENAMED.get(name, name))


def old_words(values: pd.Series | None) -> list[str]:
    """Texts with new names put back, and lists of flags in alphabetical order."""
    old = {new: name for name, new in RENAMED.items()}
    texts = () if values is None else values.fillna("").astype(str)
    return [";".join(sorted(old.get(x, x) for x in text.split(";"))) for text in texts]


def flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    """Numbers and texts of nested dictionaries and lists, by dotted names."""
    if not isinstance(nested, dict | list):
        return {prefix.lstrip("."): nested}
    items = nested.items() if isinstance(nested, dict) else enumerate(nested)
    return {k: v for key, value in items for k, v in flat(value, f"{prefix}.{key}").items()}


def check_scalars(checks: Checks, name: str, got: Any, want: Any, limit: float) -> None:
    """Compare what a command printed; what is not there any more differs."""
    got, want = flat(got), flat(want)
    for key in tuple(want):
        parent, dot, last = key.rpartition(".")
        found = got.get(key, got.get(parent + dot + RENAMED.get(last, last)))
        if isinstance(want[key], str) or (found is None and want[key] is not None):
            checks.words(f"{name}: {key}", [str(found)], [want.pop(key)])
        else:
            got[key] = found
    checks.numbers(f"{name}: {len(want)} numbers", [got[k] for k in want], list(want.values()), limit)


def check_bounds(checks: Checks, name: str, audits: dict[float, Path], want: pd.DataFrame) -> None:
    """Compare the rows of the table of bounds; the audit at 95 % has all but the bounds at other levels."""
    fitted = LOOSE if checks.loose and name in FITS else EXACT
    tables = {level: by_id(folder / "bounds.parquet") for level, folder in audits.items()}
    checks.words(f"{name}: ids", list(tables[0.95].index), list(want.index))
    tables = {level: table.reindex(want.index) for level, table in tables.items()}
    for level, table in tables.items():
        checks.numbers(f"{name}: stated level", column(table, "coverage"), np.full(len(want), level))
        for side in ("lower", "upper"):
            key = f"{side}_{100 * level:.0f}_mev_per_atom"
            checks.numbers(f"{name}: {key}", column(table, f"{side}_mev_per_atom"), want[key], fitted)
    table = tables[0.95]
    # the expected error is the centre of the interval now, where it was the mean of the refit head
    if "centre_mev_per_atom" in want:
        want = want.assign(expected_error_mev_per_atom=want["centre_mev_per_atom"])
    if "energy_mace_ev" in want:
        moved = want["n_atoms"] * want["centre_mev_per_atom"] / 1000
        want = want.assign(energy_expected_ev=want["energy_mace_ev"] + moved)
    left_out = ("lower_", "upper_", "centre_", "energy_refit", *(["novel_atom"] if checks.loose else []))
    for key in (c for c in map(str, want) if not c.startswith(left_out)):
        reference = want[key]
        if reference.dtype.kind in "fib":
            limit = fitted if key.startswith("std_") else EXACT
            checks.numbers(f"{name}: {key}", column(table, key), reference, limit)
        else:
            checks.words(f"{name}: {key}", old_words(column(table, key)), old_words(reference))


def check_coverage(checks: Checks, file: Path, want: pd.DataFrame) -> None:
    """Compare the table of measured coverage, group by group."""
    got = pd.read_csv(file, keep_default_na=False)
    got = got.rename(columns={"level": "nominal"} if "nominal" not in got else {})
    got["group"] = old_words(got["group"])
    got, want = (t.set_index(["rows", "by", "group", "nominal"]).sort_index() for t in (got, want))
    checks.words("coverage.csv: groups", list(got.index), list(want.index))
    for key, values in want.items():
        checks.numbers(f"coverage.csv: {key}", got.reindex(want.index).get(key), values)


def main() -> None:
    """Recompute and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="mp_entries.json.gz")
    parser.add_argument("--reference", type=Path, default=Path(__file__).parent / "reference")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, help="only these")
    parser.add_argument("--loose", action="store_true", help="for another processor or order of sums")
    args = parser.parse_args()
    reference = json.loads((args.reference / "reference.json").read_text())
    checks, loosely = Checks(loose=args.loose), LOOSE if args.loose else ROUNDED
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        store = work / "store"
        command("features", args.data, store, "--model", "mini", "--atoms", "--dtype", "float64")
        for name in args.heads:
            want = by_id(args.reference / f"{name}.parquet")
            head, printed = make_head(name, store, work)
            check_scalars(checks, f"{name}: fit", printed, reference["fits"].get(name, {}), loosely)
            levels = [level for level in LEVELS if f"lower_{100 * level:.0f}_mev_per_atom" in want]
            audits = {level: work / f"audit_{name}_{level:g}" for level in levels}
            for level, out in audits.items():
                command("audit", store, out, "--head", head, "--level", f"{level:g}", "--no-plots")
            check_bounds(checks, name, audits, want)
            if name == "mini":
                summary = json.loads((audits[0.95] / "summary.json").read_text())
                check_scalars(checks, f"{name}: summary.json", summary, reference["summary"], ROUNDED)
                coverage = pd.read_parquet(args.reference / "coverage.parquet")
                check_coverage(checks, audits[0.95] / "coverage.csv", coverage)
    print(f"{checks.failed} quantities differ" if checks.failed else "all the same")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
