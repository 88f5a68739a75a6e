"""The head's benchmark runs from one command; what it measures with is checked against counts by hand."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.head import array_chunks, factorise, fit_pops

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.slow
def test_last_line_has_the_four_numbers(tmp_path):
    call = [sys.executable, str(SCRIPTS / "bench_head.py"), "--quick", "--out", str(tmp_path / "all.json")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"fit_time_ratio", "fit_memory_ratio", "predict_time_ratio", "fit_1e6_mb"}
    assert all(value > 0 for value in last.values())
    assert last["fit_1e6_mb"] < 300
    everything = json.loads((tmp_path / "all.json").read_text())
    assert everything["merge"] < 1e-9
    rows = {(row["n"], row["who"]): row for row in everything["results"]}
    assert {who for _, who in rows} == {"reference", "ours", "ours-disk"}
    # 8 MB for one call of the reference, which holds 8 bytes for each of 4,000 draws and test rows
    assert rows[4000, "reference"]["turns"][0]["batch_rows"] == 250
    assert last["predict_time_ratio"] == pytest.approx(
        rows[4000, "reference"]["predict_cpu_s"] / rows[4000, "ours-disk"]["predict_cpu_s"], abs=0.06
    )


def test_rows_are_the_same_however_they_are_read(tmp_path):
    from bench_head_data import BLOCK_ROWS, RowFile, make_blocks

    n = BLOCK_ROWS + 100
    rows = RowFile(tmp_path / "rows", 5, "float32")
    rows.write(n, seed=3)
    blocks = list(islice(make_blocks(5, seed=3), 2))
    x, y = rows.read(n)
    assert np.array_equal(x, np.concatenate([b[0] for b in blocks])[:n].astype(np.float32))
    assert np.array_equal(y, np.concatenate([b[1] for b in blocks])[:n])
    pieces = list(rows.chunks(n - 50))
    assert [len(piece[1]) for piece in pieces] == [BLOCK_ROWS, 50]
    assert np.array_equal(np.concatenate([piece[0] for piece in pieces]), x[:-50])


def test_made_up_rows_are_ill_conditioned_and_misspecified():
    from bench_head_data import CONDITION, make_blocks

    x, y = next(make_blocks(20, seed=0))
    singular = np.linalg.svd(x, compute_uv=False)
    assert singular[0] / singular[-1] == pytest.approx(
        CONDITION, rel=0.2
    )  # 2,048 rows: few per cent of sampling
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    latent = x @ np.linalg.svd(x)[2].T  # the first directions carry the bent term, up to sign
    bent = np.tanh(2.0 * latent[:, 0]) * latent[:, 1]
    assert abs(np.corrcoef(rest, bent)[0, 1]) > 0.3


def test_memory_is_that_of_this_process():
    from bench_head_worker import resident_mb

    before, peak = resident_mb("VmRSS"), resident_mb("VmHWM")
    assert peak >= before > 10.0
    held = np.ones(25_000_000)  # 200 MB
    assert resident_mb("VmRSS") - before == pytest.approx(200.0, abs=20.0)
    assert resident_mb("VmHWM") >= before + 180.0
    del held


def test_batches_of_the_reference_are_all_its_rows():
    from bench_head_worker import Reference

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 4)), rng.standard_normal(300)
    small, large = Reference(limit_mb=0.05), Reference(limit_mb=100.0)
    small.x, small.y = large.x, large.y = x, y
    small.fit()
    large.model = small.model
    assert (small.batch_rows(100), large.batch_rows(100)) == (20, 100)
    assert small.batch_rows(3) == 3
    (whole,) = large.predict(x[:100])
    parts = small.predict(x[:100])
    assert len(parts) == 5
    for k, column in enumerate(whole):
        assert np.allclose(np.concatenate([part[k] for part in parts]), column, rtol=1e-12, atol=1e-14)


def test_ratios_are_medians_over_rounds():
    from bench_head import summary

    theirs = [{"fit_cpu_s": t, "fit_mb": 8.0, "predict_cpu_s": 1.0} for t in (4.0, 9.0, 50.0)]
    ours = [{"fit_cpu_s": t, "fit_mb": 2.0, "predict_cpu_s": 0.5} for t in (2.0, 3.0, 50.0)]
    out = summary(ours, theirs)
    assert (out["fit_cpu_s_ratio"], out["fit_mb_ratio"], out["predict_cpu_s_ratio"]) == (2.0, 4.0, 2.0)
    assert out["fit_cpu_s"] == 3.0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 80), min_size=8, max_size=8))
def test_factors_of_eight_workers_give_one_head_in_any_grouping_and_order(seed, sizes):
    from bench_head_data import make_blocks
    from bench_head_merge import difference, merge_in_any_order

    n = sum(sizes) + 100  # the last worker has as many rows as a fit of eight columns wants
    x, y = (part[:n] for part in next(make_blocks(8, seed)))
    shares = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    factors = [factorise(array_chunks(x[rows], y[rows])) for rows in shares]
    counts = [factor.n_rows for factor in factors]
    heads = [
        fit_pops(array_chunks(x, y), factor=merge_in_any_order(factors, np.random.default_rng(order))).head
        for order in (seed, seed + 1)
    ]
    alone = fit_pops(array_chunks(x, y)).head
    assert difference(heads[0], alone, x) < 1e-9
    assert difference(heads[0], heads[1], x) < 1e-9
    assert [factor.n_rows for factor in factors] == counts  # merging leaves the workers' own factors alone


def test_a_missing_worker_shows():
    from bench_head_data import make_blocks
    from bench_head_merge import difference

    x, y = next(make_blocks(6, seed=1))
    whole, rest = (fit_pops(array_chunks(x[:n], y[:n])).head for n in (2000, 1990))
    assert difference(rest, whole, x) > 1e-6
