"""Fit, calibrate and measure the head that ships for ``chgnet`` (CHGNet 0.3.0).

    python scripts/build_chgnet_head.py --data ../shared/data --work runs/chgnet-head

CHGNet was trained on MPtrj, the relaxations of the Materials Project. The head is fitted on sources that are no part of
it, WBM and Alexandria at 0 GPa (every second one of its small cells, which would outweigh the others), less the
compositions that are known to be in MPtrj because the Materials Project's crystals in the data have them. A third of these,
which the model has seen, is measured only. What is there in ``--work`` is kept. Features take two minutes of one
processor, each fit a minute and a half, each split of the comparison several minutes. What ships was made with
``--splits 0 --repeats 1``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from build_mini_head import comparison_text
from mace_bounds import BoundsPredictor, CardNotes, FitConfig, compare, extract, fit, load_model, read
from mace_bounds.benchmark import CompareConfig
from mace_bounds.bounds import load_head
from mace_bounds.calibration import CalibratedHead
from mace_bounds.decisions import JOINT, joint_model, kept
from mace_bounds.features import ExtractSettings, FeatureStore
from mace_bounds.head import read_head_folder, write_head
from mace_bounds.structures import Record, composition_keys

HEADS = Path(__file__).parent.parent / "src/mace_bounds/data/heads"
UNSEEN_FILES = ("wbm.extxyz.gz", "alexandria_frames.extxyz.gz")
SEEN_FILES = ("mp_entries.json.gz", "mptrj_frames.extxyz.gz")
SMALL_CELLS = "Alexandria, small cells"
SOURCES = {
    "wbm": "WBM",
    "mattersim_alexandria_random_1k": "Alexandria, random",
    "matsciml_alexandria_devset": "Alexandria, random",
    "alexandria_pressure_P000": SMALL_CELLS,
    "mp_entries.json.gz": "Materials Project",
    "mattersim_mptrj_random_1k": "MPtrj",
    "orb_mptrj_fixture_forces": "MPtrj",
}
"""Names of the sources in the data; others (frames of high stress, cells under pressure) are left out."""
METHODS = ("constant", "llpr", "quantile", "mace_bounds")
NOTES = (
    "relaxed crystals of WBM and Alexandria (0 GPa), less the compositions that are known to be in MPtrj; MPtrj, which "
    "CHGNet was trained on, is no part of them"
)
LICENCE = (
    "MIT; features by CHGNet 0.3.0 (modified BSD); data: WBM as in materialsvirtuallab/matcalc (BSD-3-Clause), Alexandria "
    "(CC BY 4.0) as in microsoft/mattersim (MIT)"
)
DEVELOPMENT = (
    "Energies of CHGNet 0.3.0 are MP2020-corrected; the corrections were taken off with pymatgen, so that the bounds hold "
    "uncorrected PBE(+U) total energies. CHGNet was trained on MPtrj, that is on the Materials Project. Its "
    "package does not list the compositions, and MPtrj itself was not at hand, so which rows have a composition that it has "
    "seen is not known exactly: those of 3,000 crystals of the Materials Project and MPtrj were left out, and others "
    "will have been seen. Settings are the "
    "defaults of `fit`, but for the calibration, which is by rows set apart (`conformal=split`, so that the head is small); they "
    "were developed on errors of mini, on some of these crystals, and a study with CHGNet on some of them came before: read "
    "the numbers as development numbers."
)


def records(data: Path, files: tuple[str, ...], left_out: np.ndarray) -> Iterator[Record]:
    """Crystals of the files under the names of their sources, less those of some compositions."""
    elements = frozenset(load_model("chgnet").atomic_numbers)
    n_small = 0
    for record in (record for name in files for record in read(data / name, elements=elements)):
        source = SOURCES.get(record.source)
        if source is None or record.crystal is None:
            continue
        n_small += source == SMALL_CELLS
        if source == SMALL_CELLS and n_small % 2:  # they would outweigh the others
            continue
        if not np.isin(composition_keys([record.crystal.formula]), left_out).any():
            yield replace(record, source=source)


def known_keys(data: Path) -> np.ndarray:
    """Compositions that are known to be in MPtrj."""
    crystals = (record.crystal for name in SEEN_FILES for record in read(data / name))
    return composition_keys(sorted({crystal.formula for crystal in crystals if crystal is not None}))


def stored(crystals: Iterator[Record], folder: Path) -> FeatureStore:
    return extract(
        crystals,
        folder,
        load_model("chgnet", device="cpu"),
        ExtractSettings(atoms=True, workers=1),
        progress=lambda done, bad: print(f"{folder.name}: {done} rows, {bad} failed", flush=True),
    )


def seen_text(head: CalibratedHead, store: FeatureStore) -> str:
    """Markdown: coverage on crystals that the model was trained on."""
    table = BoundsPredictor("chgnet", head).table(store.read().labelled(), detailed=True)
    lines = [
        "Measured only, on crystals of the kind that CHGNet was trained on (its errors are smaller there, and more are inside):",
        "",
        "| source | n | median error, meV/atom | covered at 90 % | at 95 % | at 99 % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for source, rows in table.groupby("source"):
        error = rows["error_mev_per_atom"].abs().median()
        shares = [(rows["covered_above_level"] < level).mean() for level in (0.9, 0.95, 0.99)]
        lines.append(
            f"| {source} | {len(rows):,} | {error:.0f} | {' | '.join(f'{100 * s:.1f} %' for s in shares)} |"
        )
    return "\n".join(lines)


def make_narrow(folder: Path) -> None:
    """Keep long arrays of a head in float32: its bounds change by round-off, and the wheel is smaller."""
    tensors, config = read_head_folder(folder)
    own = {name: value for name, value in config.items() if name not in ("format", "digest", "float32")}
    card, before = (folder / "README.md").read_text(), load_head(folder)
    write_head(folder, tensors, own, card, overwrite=True, narrow=True)
    if JOINT in before.beside:  # it knows its head by the scores, which round-off has changed
        (folder / JOINT).write_bytes(kept._to_bytes(joint_model(before), load_head(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HEADS / "chgnet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--splits", type=int, default=3, help="of the comparison; 0 for none")
    args = parser.parse_args()
    unseen = stored(records(args.data, UNSEEN_FILES, known_keys(args.data)), args.work / "unseen")
    nothing = np.empty(0, dtype=np.uint64)
    seen = stored(islice(records(args.data, SEEN_FILES, nothing), 0, None, 3), args.work / "seen")
    config = FitConfig(conformal="split", kept_rows=1000)  # no heads of folds, and few rows: 1 MB and not 6
    compared = {}
    if args.splits:
        compared["On the compositions above"] = compare(
            unseen,
            args.work / "compared",
            CompareConfig(n_splits=args.splits, methods=METHODS, fit=config),
            progress=lambda done, total: print(f"compared on {done} of {total} splits", flush=True),
        )
    report = fit(
        unseen,
        config=config,
        repeats=args.repeats,
        progress=lambda done, total: print(f"fit {done} of {total}", flush=True),
    )
    others = f"{comparison_text(compared)}\n\n{seen_text(report.head, seen)}".strip()
    report = report.save(args.out, CardNotes(NOTES, LICENCE, DEVELOPMENT, others), overwrite=True)
    make_narrow(args.out)
    print(report.repeats.to_string(index=False))
    print(report.verdict.numbers, report.verdict.sentence)
    print(f"wrote {report.folder}")


if __name__ == "__main__":
    main()
