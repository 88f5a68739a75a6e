"""Teach the head that ships for ``mini`` how errors of one crystal at two volumes cancel; its bounds stay as they are.

    python scripts/build_strained.py --data ../shared/data --work runs/strained

Crystals are Alexandria's small cells, relaxed at 0, 25 and 50 GPa, of compositions that the training of ``mini`` has not
seen; those of the head's test rows take no part. Only the head's ``joint.safetensors`` is written. Features take two
minutes of one processor; ``scripts/decisions_study.py --volumes WORK/store`` measures what comes of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from build_mini_head import CONFIG
from mace_bounds import extract, load_model, read
from mace_bounds._io import atomic
from mace_bounds.calibration import load_head
from mace_bounds.decisions import JOINT, STRAINED, joint_model, with_strained
from mace_bounds.features import ExtractSettings, checked_labels
from mace_bounds.structures import Record, compositions_in

HEAD = Path(__file__).parent.parent / "src/mace_bounds/data/heads/mini"
SOURCES = tuple(f"alexandria_pressure_P{gpa:03d}" for gpa in (0, 25, 50))


def records(data: Path, elements: frozenset[int], head: Path) -> Iterator[Record]:
    """Cells at the three pressures whose composition the training of the model has not seen."""
    seen = load_head(head).training_compositions
    for record in read(data / "alexandria_frames.extxyz.gz", elements=elements):
        crystal = record.crystal
        if crystal is None or record.source not in SOURCES:
            continue
        if not compositions_in([crystal.formula], seen).any():
            yield replace(record, source="Alexandria")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--head", type=Path, default=HEAD)
    args = parser.parse_args()
    model = load_model("mini", device="cpu")
    store = extract(
        records(args.data, frozenset(model.atomic_numbers), args.head),
        args.work / "store",
        model,
        ExtractSettings(symmetry=True, workers=1),
        progress=lambda done, bad: print(f"{done} rows, {bad} failed", flush=True),
    )
    head = load_head(args.head)
    head.check_store(store.manifest)
    found = with_strained(head, CONFIG, checked_labels(store.read()))[JOINT]
    with atomic(args.head / JOINT) as temporary:
        temporary.write_bytes(found)
    model_of = joint_model(load_head(args.head))
    print(*(row for row in model_of.reliability if row.kind == STRAINED), sep="\n")
    print(f"wrote {args.head / JOINT}: {model_of}")


if __name__ == "__main__":
    main()
