"""The benchmark runs from one command and ends with its JSON line."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from helpers import forked
from mace_bounds.examples import example_files
from mace_bounds.structures import read

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.slow
def test_the_last_line_has_the_numbers(tmp_path):
    sizes = ("--models", "mini", "--n", "4", "--rounds", "1", "--only", "ae", "--cores", "1", "--peak", "0")
    call = (forked.script, SCRIPTS / "bench_features.py", "--out", tmp_path / "all.json")
    done = forked.run(*call, *sizes, timeout=600)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    by_core = {"ratio_float64_per_core_s", "ratio_float32_per_core_s"}
    assert set(last) == {"ratio_float64", "ratio_float32", "atoms_per_s_float32", "peak_mb"} | by_core
    assert all(value > 0 for value in last.values())
    (result,) = json.loads((tmp_path / "all.json").read_text())["models"]
    rows = {(row["letter"], row["dtype"]): row for row in result["rows"]}
    assert list(rows) == [("a", "float64"), ("e", "float64"), ("e", "float32")]
    assert rows["e", "float64"]["max_energy_difference_mev_per_atom"] < 1e-6
    assert rows["e", "float32"]["max_energy_difference_mev_per_atom"] < 0.1
    assert sum(rows["e", "float32"]["stages"].values()) == pytest.approx(1.0)


def test_memory_of_a_store_is_that_of_its_processes(tiny_model_folder, tmp_path):
    from bench_team import watch_memory

    (tmp_path / "crystals").write_bytes(
        pickle.dumps([record.crystal for record in read(example_files("Si"))])
    )
    call = (forked.script, SCRIPTS / "bench_peers.py", "store", tiny_model_folder, tmp_path / "crystals", "1")
    with forked.start(*call) as process:
        peak_mb = watch_memory(process)
        assert process.wait() == 0
    assert peak_mb is None or 50 < peak_mb < 2000


def test_shares_have_like_sizes():
    from bench_team import deal

    size = np.random.default_rng(0).integers(10, 500, 200)
    parts = deal(range(200), size, 5)
    assert sorted(i for part in parts for i in part) == list(range(200))
    totals = [size[part].sum() for part in parts]
    assert max(totals) - min(totals) <= size.max()
