"""Choose and calibrate the joint errors of the head that ships for ``mini`` again; its bounds stay as they are.

    python scripts/build_joint.py --data ../shared/data --store runs/mini-head/store --work runs/joint

``--store`` has the features that ``scripts/build_mini_head.py`` fitted the head on. To them come Alexandria's small cells
relaxed at 0, 25 and 50 GPa, of compositions that the training of ``mini`` has not seen, which teach how errors of one
crystal at two volumes cancel; those of the head's test rows take no part. Only the head's ``joint.safetensors`` is
written. Two to three minutes of one processor; ``scripts/decisions_study.py --volumes WORK/store`` measures what comes of
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from build_mini_head import CONFIG
from mace_bounds import extract, load_model, read
from mace_bounds._io import atomic
from mace_bounds.calibration import CalibratedHead, FitResult, load_head, split_rows, usable_rows
from mace_bounds.decisions import JOINT, joint_bytes, joint_file, joint_model, with_strained
from mace_bounds.features import ExtractSettings, FeatureStore, checked_labels
from mace_bounds.structures import Record, compositions_in

HEAD = Path(__file__).parent.parent / "src/mace_bounds/data/heads/mini"
SOURCES = tuple(f"alexandria_pressure_P{gpa:03d}" for gpa in (0, 25, 50))


def records(data: Path, elements: frozenset[int], head: CalibratedHead) -> Iterator[Record]:
    """Cells at the three pressures whose composition the training of the model has not seen."""
    for record in read(data / "alexandria_frames.extxyz.gz", elements=elements):
        crystal = record.crystal
        if crystal is None or record.source not in SOURCES:
            continue
        if not compositions_in([crystal.formula], head.training_compositions).any():
            yield replace(record, source="Alexandria")


def fit_of(head: CalibratedHead, store: FeatureStore) -> FitResult:
    """The fit that a head is from: its rows in their order, and their splits."""
    rows, left_out = usable_rows(checked_labels(store.read()), head.training_compositions)
    rows = rows.take(np.argsort(rows.table["id"].to_numpy(str), kind="stable"))
    return FitResult(head, rows, split_rows(rows.table["formula"].to_numpy(str), CONFIG), left_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--head", type=Path, default=HEAD)
    args = parser.parse_args()
    model, head, store = load_model("mini", device="cpu"), load_head(args.head), FeatureStore(args.store)
    head.check_store(store.manifest)
    volumes = extract(
        records(args.data, frozenset(model.atomic_numbers), head),
        args.work / "store",
        model,
        ExtractSettings(symmetry=True, workers=1),
        progress=lambda done, bad: print(f"{done} rows, {bad} failed", flush=True),
    )
    fresh = replace(head, beside=joint_bytes(fit_of(head, store), CONFIG, checked_labels(store.read())))
    model_of = replace(
        joint_model(fresh), prior=joint_model(head).prior
    )  # P(stable) stays as it was measured
    head = replace(head, beside=joint_file(model_of, head))
    found = with_strained(head, CONFIG, checked_labels(volumes.read()))[JOINT]
    with atomic(args.head / JOINT) as temporary:
        temporary.write_bytes(found)
    joint = joint_model(load_head(args.head))
    print(*joint.reliability, f"wrote {args.head / JOINT}: {joint}", sep="\n")


if __name__ == "__main__":
    main()
