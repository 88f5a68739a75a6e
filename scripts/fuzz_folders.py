"""Read mutated heads and stores: each is used as it is or refused with one sentence, without a warning on the way.

    python scripts/fuzz_folders.py HEAD STORE --n 500 --seed 1

HEAD and STORE are folders of ``mace-bounds fit`` and ``features``. Heads are signed again after most mutations, as a
foreign program would; stores are rewritten with the same seals. Prints how many were used, refused and for which
reasons; the exit code is 1 if an exception that is no sentence escaped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from mace_bounds.bounds import detailed_table
from mace_bounds.calibration import load_head
from mace_bounds.errors import MaceBoundsError
from mace_bounds.features import FeatureRows, FeatureStore
from mace_bounds.features import manifest as _manifest
from mace_bounds.features import shard as _shard
from mace_bounds.head import folder as _folder

ODD: tuple[Any, ...] = (None, True, 0, -1, 3.5, 1e300, "", "x", [], [[1]], {}, {"a": 1}, ["x", 2], "\x1b[2J")


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside of nested JSON values."""
    inner = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values[:3])
        if isinstance(values, list)
        else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def change(values: Any, rng: random.Random) -> str:
    """Replace, delete or rename one value in nested JSON; returns what was done."""
    path = rng.choice(list(places(values)))
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    what = rng.choice(("replace", "replace", "delete", "rename"))
    if what == "replace" or isinstance(inside, list):
        inside[path[-1]] = rng.choice(ODD)
    elif what == "delete":
        del inside[path[-1]]
    else:
        inside[f"{path[-1]}_"] = inside.pop(path[-1])
    return f"{what} {'.'.join(map(str, path))}"


def other_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another shape, type or values than a tensor had."""
    flat = array.reshape(-1)
    ways: list[Callable[[], np.ndarray]] = [
        lambda: np.asarray(flat[0] if flat.size else 0, dtype=array.dtype),
        lambda: flat,
        lambda: array[None],
        lambda: array[..., :-1] if array.ndim and array.size else array,
        lambda: np.concatenate([array, array]) if array.ndim else flat,
        lambda: array[:0] if array.ndim else flat[:0],
        lambda: array.T.copy(),
        lambda: array.astype(rng.choice(["float32", "int64", "int32", "uint8", "bool", "float64"])),
        lambda: np.full_like(array, rng.choice([0, 1, -1, 127])),
    ]
    if array.dtype.kind == "f":
        ways += [lambda v=v: np.full_like(array, v) for v in (np.nan, np.inf, -np.inf, 1e300, 1e-300)]
    return np.ascontiguousarray(rng.choice(ways)())


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut a file, flip a bit, or put another in its place."""
    place = rng.randrange(len(data))
    flipped = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    return rng.choice([data[:place], flipped, b"", b"\x80\x04.", b"[" * 100_000, save({"a": np.ones(2)})])


def mutated_head(source: Path, target: Path, rng: random.Random) -> str:
    """Write a mutated copy of a head; returns what was done."""
    shutil.copytree(source, target)
    kind = rng.choice(("tensor", "tensor", "config", "config", "names", "file"))
    if kind == "file":
        name = rng.choice((_folder.CONFIG, _folder.TENSORS))
        (target / name).write_bytes(damage((target / name).read_bytes(), rng))
        return f"damaged {name}"
    tensors, config = _folder.read_head_folder(source)
    name = rng.choice(sorted(tensors))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "tensor":
            tensors[name] = other_array(tensors[name], rng)
            done = f"{name} is {tensors[name].dtype}{tensors[name].shape}"
        elif kind == "names":
            array = tensors.pop(name)
            done = f"no {name}"
            if rng.random() < 0.5:
                tensors[rng.choice(sorted(tensors))] = array
        else:
            done = change(config, rng)
    data = save(tensors)
    if isinstance(config, dict):
        config.pop("digest", None)
        config["digest"] = _folder._digest(config, data)
    (target / _folder.TENSORS).write_bytes(data)
    (target / _folder.CONFIG).write_text(json.dumps(config))
    return done


def other_column(column: pa.ChunkedArray, rng: random.Random) -> pa.Array:
    """A column of another type or with other values."""
    n = len(column)
    return rng.choice(
        [
            pa.array([[1]] * n),
            pa.array(["x"] * n),
            pa.array([1.5] * n),
            pa.array([None] * n, type=pa.float64()),
            pa.array([2**40] * n),
            pa.array([{"a": 1}] * n),
            pa.array([True] * n),
            pa.array([b"\xff"] * n),
        ]
    )


def mutated_store(source: Path, target: Path, rng: random.Random) -> str:
    """Write a mutated copy of a store; returns what was done."""
    shutil.copytree(source, target)
    shard = rng.choice(sorted(target.glob("shard-*.parquet")))
    kind = rng.choice(("manifest", "manifest", "column", "column", "file", "gone"))
    if kind == "gone":
        shard.unlink()
        return "a shard is missing"
    if kind == "file":
        path = rng.choice((shard, target / _manifest.MANIFEST))
        path.write_bytes(damage(path.read_bytes(), rng))
        return f"damaged {path.name}"
    if kind == "manifest":
        values = json.loads((target / _manifest.MANIFEST).read_text())
        done = change(values, rng)
        values.pop("digest", None)
        values["digest"] = _manifest._digest(values)
        (target / _manifest.MANIFEST).write_text(json.dumps(values))
        return done
    table = pq.read_table(shard)
    name = rng.choice(table.column_names)
    if rng.random() < 0.3:
        table = table.drop_columns([name])
    else:
        place = table.column_names.index(name)
        table = table.set_column(place, name, other_column(table.column(place), rng))
    _shard._write_sealed(table, shard)
    return f"another column {name}"


def use_head(folder: Path, rows: FeatureRows) -> None:
    """What score and audit do with a head."""
    head = load_head(folder)
    detailed_table(rows, head, head.levels[0], None)


def use_store(folder: Path, head: Any) -> None:
    """What fit and audit do with a store."""
    store = FeatureStore(folder)
    rows = store.read(max_atoms=1000)
    store.digest()
    head.check_store(store.manifest)
    detailed_table(rows, head, head.levels[0], None)


def run(
    n: int, seed: int, mutate: Callable[[Path, random.Random], str], use: Callable[[Path], None]
) -> tuple[Counter[str], list[str]]:
    """Mutate n times and use each; returns counts and the faults."""
    counts: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(n):
            rng, target = random.Random(f"{seed}:{k}"), Path(folder) / str(k)
            done = mutate(target, rng)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    use(target)
                counts["used as it is"] += 1
            except MaceBoundsError as error:
                counts["refused"] += 1
                text = str(error)
                if "\n" in text or not text.endswith("."):
                    faults.append(f"{k}: {done}: no sentence: {text!r}")
            except Exception as error:
                faults.append(f"{k}: {done}: {type(error).__name__}: {error}")
            shutil.rmtree(target, ignore_errors=True)
    return counts, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("head", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows, head = FeatureStore(args.store).read().scored().take(np.arange(20)), load_head(args.head)
    failed = False
    for name, mutate, use in (
        ("heads", lambda to, rng: mutated_head(args.head, to, rng), lambda folder: use_head(folder, rows)),
        (
            "stores",
            lambda to, rng: mutated_store(args.store, to, rng),
            lambda folder: use_store(folder, head),
        ),
    ):
        counts, faults = run(args.n, args.seed, mutate, use)
        print(f"{name}: {dict(counts)}, {len(faults)} faults")
        print("\n".join(f"  {fault}" for fault in faults))
        failed = failed or bool(faults)
    sys.exit(failed)


if __name__ == "__main__":
    main()
