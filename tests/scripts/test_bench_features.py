"""The benchmark runs from one command and ends with its JSON line; its counts agree with counts by hand."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from helpers import forked
from mace_bounds.backbones.mace import embedded as _embedded
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


def test_counted_work_of_mini():
    from bench_floor import count_work

    module = _embedded.load(_embedded.MINI_FOLDER).module
    stages = {work.stage: work for work in count_work(module)}
    c, bessel, hidden = 32, 8, 32  # channels, radial functions, width of the radial MLP
    first = 3  # paths: scalars with l = 0, 1, 2
    second = {0: 2, 1: 3, 2: 2}  # paths to each l: 00, 11; 01, 10, 12; 02, 11
    mlp = bessel * hidden + hidden**2
    assert stages["layer 1, radial MLP"].macs_per_length == mlp + hidden * first * c
    assert stages["layer 2, radial MLP"].macs_per_length == mlp + hidden * sum(second.values()) * c
    assert stages["layer 1, convolution"].macs_per_edge == first * c + c * (1 + 3 + 5)
    assert stages["layer 1, linear maps by element"].macs_per_atom == (1 + 3 + 5) * c**2
    mixed = sum((2 * l3 + 1) * n for l3, n in second.items())
    assert stages["layer 2, linear maps by element"].macs_per_atom == (mixed + 1) * c**2  # and the residual
    # scalars for the readout; the product's map and the next layer's first are one for scalars and vectors
    assert stages["layer 1, linear maps after"].macs_per_atom == (1 + 1 + 3) * c**2
    assert stages["layer 2, linear maps after"].macs_per_atom == c**2 + 16 * c


def test_monomials_are_counted_once():
    import torch

    from bench_floor import monomials_of

    u = torch.zeros(3, 3, 1)  # 2 x0 x1 as two permutations, x1², and x0 x2 - x2 x0 = 0
    u[0, 1, 0] = u[1, 0, 0] = u[1, 1, 0] = u[0, 2, 0] = 1.0
    u[2, 0, 0] = -1.0
    assert monomials_of(u, 2) == ({(0, 1), (1, 1)}, 2)


def test_shares_have_like_sizes():
    from bench_team import deal

    size = np.random.default_rng(0).integers(10, 500, 200)
    parts = deal(range(200), size, 5)
    assert sorted(i for part in parts for i in part) == list(range(200))
    totals = [size[part].sum() for part in parts]
    assert max(totals) - min(totals) <= size.max()
