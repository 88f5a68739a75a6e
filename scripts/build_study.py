"""``mace-bounds build`` end to end without a network, with a model of the architecture of MACE-MPA-0.

    python scripts/build_study.py mp_entries.json.gz [--n 100] [--channels 128] [--kills 6]

Weights are random: a checkpoint stands where mace would keep that of ``medium-mpa-0``. A Materials Project on the
loopback interface serves N of the entries; their labels are the model's own energies with a smooth error and noise, as
random weights know nothing of real ones. First the dry run, then an undisturbed build, whose times are compared with
those of the dry run; then kills at random moments (:mod:`kill_study`). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kill_study import MAIN, Forked, project_of, study

QUERY = "mp:hull=1"


def put_checkpoint(channels: int) -> Path:
    """Leave a model of random weights where mace looks for MACE-MPA-0."""
    import torch

    import mpa0_architecture
    from mace_bounds.backbones import find_weights

    options = mpa0_architecture.MPA_0 | {"hidden_irreps": f"{channels}x0e+{channels}x1o"}
    module = mpa0_architecture.build(options).float()
    path = find_weights("medium-mpa-0").path
    path.parent.mkdir(parents=True)
    torch.save(module, path)
    return path


def labelled(entries: list[dict[str, Any]], model: Path) -> list[dict[str, Any]]:
    """Entries whose energies are the model's, nearly."""
    from mace_bounds.backbones import load_model
    from mace_bounds.features import extract_rows
    from mace_bounds.structures import read

    records, rng = list(read(entries)), np.random.default_rng(0)
    energies = extract_rows(records, load_model(model)).table["energy_model_ev"]
    for entry, record, energy_ev in zip(entries, records, energies, strict=True):
        n, volume = len(record.crystal.numbers), record.crystal.volume
        entry["energy"] = float(energy_ev + n * (0.002 * (volume / n - 18) + 0.03 * rng.standard_t(3)))
        entry["correction"] = 0.0
        entry["energy_adjustments"] = []
    return entries


def run(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-W", "ignore", "-c", MAIN, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entries", type=Path)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        model = put_checkpoint(args.channels)
        entries = json.loads(gzip.decompress(args.entries.read_bytes()))
        entries = labelled(entries[:: len(entries) // args.n][: args.n], model)
        from helpers.mp_server import KEY, serving

        options = ["--source", QUERY, "--shard-rows", "8", "--device", "cpu", "--workers", "1"]
        with serving(project_of(entries)) as endpoint:
            os.environ |= {"MP_API_KEY": KEY, "MP_API_ENDPOINT": endpoint}
            plan = json.loads(run("build", "out", *options, "--dry-run", "--json", cwd=place))
            made = json.loads(run("build", "out", *options, "--json", cwd=place))
            steps = [["build", "out", *options]]
            found = study(steps, Forked, args.kills, args.seed) if args.kills else None
        size = sum(path.stat().st_size for path in (place / "out").rglob("*") if path.is_file())
        print(
            json.dumps(
                {
                    "checkpoint_bytes": model.stat().st_size,
                    "structures": plan["sources"][0]["structures"],
                    "atoms": plan["sources"][0]["atoms"],
                    "planned": {s["stage"]: [s["seconds"], s["disk_bytes"]] for s in plan["stages"]},
                    "taken_seconds": {k: v.get("seconds") for k, v in made["stages"].items()},
                    "planned_bytes": plan["needed_bytes"],
                    "bytes": size,
                    "kills": found and found.__dict__,
                }
            )
        )
    return 0 if found is None or found.identical else 1


if __name__ == "__main__":
    sys.exit(main())
