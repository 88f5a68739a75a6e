"""Kill ``mace-bounds features`` with SIGKILL at random moments; compare with an undisturbed run.

    python scripts/kill_study.py SOURCE [--model mini] [--kills 10]

Prints one JSON object; exits with 1 if any shard differs by a byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(source: str, out: Path, model: str) -> list[str]:
    return [
        "mace-bounds",
        "features",
        source,
        str(out),
        "--model",
        model,
        "--shard-rows",
        "32",
        "--device",
        "cpu",
    ]


def digests(folder: Path) -> dict[str, str]:
    names = [*sorted(folder.glob("shard-*.parquet")), folder / "manifest.json"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        subprocess.run(command(args.source, whole, args.model), check=True, capture_output=True)
        n_shards = len(digests(whole)) - 1
        shards_at_kill = []
        for _ in range(args.kills):
            there = len(list(broken.glob("shard-*.parquet")))
            wanted = there + rng.randint(0, (n_shards - there) // 3)
            process = subprocess.Popen(
                command(args.source, broken, args.model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None and len(list(broken.glob("shard-*.parquet"))) <= wanted:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
            shards_at_kill.append(len(list(broken.glob("shard-*.parquet"))))
        subprocess.run(command(args.source, broken, args.model), check=True, capture_output=True)
        same = digests(whole) == digests(broken)
    print(
        json.dumps(
            {"identical": same, "kills": args.kills, "shards": n_shards, "shards_at_kill": shards_at_kill}
        )
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
