"""Records for feature stores: labelled crystals with failures, and elemental crystals of chosen elements."""

from __future__ import annotations

from pathlib import Path

from helpers.deadly import KILLS, KILLS_ONCE, RAISES
from helpers.mace_builds import real_crystals
from mace_bounds.backbones import load_model
from mace_bounds.features import ExtractSettings, extract
from mace_bounds.structures import Crystal, Record


def records(n: int = 40) -> list[Record]:
    """Labelled crystals, every seventh one a failure, every third one without a label."""
    out = []
    crystals = real_crystals(60)
    for i in range(n):
        crystal = crystals[i % len(crystals)]
        crystal = Crystal(crystal.numbers, crystal.positions, crystal.cell * (1 + 0.001 * i))
        if i % 7 == 6:
            out.append(Record(f"r{i}", "test", reason="expected a structure, got none; check it"))
        else:
            label = None if i % 3 == 0 else -1.5 * i
            hull = 0.01 * (i % 4) if i % 5 else None
            told = {"energy_ev": label, "label_kind": "made up", "hull_distance_ev_per_atom": hull}
            out.append(Record(f"r{i}", "test", crystal, flags=("f",), **told))
    return out


def extract_records(folder: Path | str, checkpoint: Path | str) -> None:
    """Fill a store with 120 records in 30 shards, in this process."""
    settings = ExtractSettings(symmetry=True, shard_rows=4, workers=1)
    extract(records(120), folder, load_model(checkpoint, device="cpu"), settings)


def elements(*numbers: int) -> list[Record]:
    """Records of elemental crystals, z=0 for any of those on which no model of this file fails."""
    crystals = {next(iter(c.counts)): c for c in real_crystals(60)}
    others = iter(z for z in crystals if z not in (KILLS, KILLS_ONCE, RAISES))
    chosen = [z or next(others) for z in numbers]
    return [Record(f"r{k}", "test", crystals[z]) for k, z in enumerate(chosen)]
