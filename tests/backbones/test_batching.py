"""Batches that fill a budget of memory."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import forked
from helpers.mace_builds import MPA_0, TINY, build, real_crystals
from mace_bounds.backbones import load_model
from mace_bounds.backbones.graph import WAITING_SHARE, Graph, MemoryCost, ahead, batches, pack
from mace_bounds.backbones.mace.checkpoint import mace_cost


def graph(n_atoms: int, n_edges: int) -> Graph:
    return Graph(
        np.ones(n_atoms, dtype=np.int64),
        np.zeros((n_atoms, 3)),
        np.zeros((2, n_edges), dtype=np.int64),
        np.zeros((n_edges, 3)),
    )


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 60))
def test_pack_places_everything_once_and_keeps_the_capacity(sizes, capacity):
    bins = pack(sizes, capacity)
    assert sorted(i for things in bins for i in things) == list(range(len(sizes)))
    for things in bins:
        assert len(things) == 1 or sum(sizes[i] for i in things) <= capacity
        assert things == sorted(things)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(30, 60))
def test_all_bins_but_one_are_at_least_half_full(sizes, capacity):
    filled = sorted(sum(sizes[i] for i in things) for things in pack(sizes, capacity))
    assert all(2 * size >= capacity for size in filled[1:])


def test_the_largest_are_placed_first():
    assert pack([1, 5, 4, 2], 6) == [[0, 1], [2, 3]]
    assert pack([3.0, 9.0, 3.0], 6.0) == [[1], [0, 2]]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 300)), max_size=40),
    st.integers(2_000, 60_000),
)
def test_batches_hold_every_graph_once_within_the_memory(sizes, memory_bytes):
    graphs = [graph(*size) for size in sizes]
    cost = MemoryCost(per_atom_bytes=100.0, per_edge_bytes=50.0, base_bytes=500.0)
    seen = []
    for places, batch in batches(iter(graphs), cost, memory_bytes):
        assert all(graphs[place] is g for place, g in zip(places, batch, strict=True))
        needed = 500 + sum(100 * g.n_atoms + 50 * g.n_edges for g in batch)
        assert len(batch) == 1 or needed <= (1 - WAITING_SHARE) * memory_bytes
        seen += places
    assert sorted(seen) == list(range(len(graphs)))


def test_few_graphs_are_made_before_the_first_batch_runs():
    made = []

    def stream():
        for k in range(1_000):
            made.append(k)
            yield graph(2, 100)

    next(batches(stream(), MemoryCost(10.0, 10.0), 100_000))
    assert len(made) <= 0.25 * 100_000 / (100 * 40) + 1


def test_ahead_is_the_same_stream():
    assert list(ahead(iter(range(7)))) == list(range(7))
    assert list(ahead(iter(()))) == []

    def breaks():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(ahead(breaks()))


def test_the_budget_changes_no_number_and_no_order():
    frozen = load_model(build(TINY), dtype="float64", device="cpu")
    crystals = real_crystals(20)
    together = frozen.extract(crystals)
    scale = np.abs(together.features).max()
    for memory_bytes in (1, 300_000, 3_000_000):
        small = replace(frozen, memory_bytes=memory_bytes).extract(crystals)
        assert np.allclose(small.energy_ev, together.energy_ev, rtol=1e-12)
        assert np.allclose(small.fixed_energy_ev, together.fixed_energy_ev, rtol=1e-12)
        assert np.allclose(small.features, together.features, rtol=1e-12, atol=1e-13 * scale)
    assert frozen.extract([]).features.shape == (0, len(frozen.columns()))


def test_cost_of_mace_follows_the_sizes_of_the_model():
    cost = mace_cost(build(MPA_0).float())
    # second convolution: 10 paths of 128 channels, 4 components on average; contraction to 1o: 3 x 16 x 16 x 128
    assert cost.per_edge_bytes == 2.5 * 4 * 10 * 128 * 4
    assert cost.per_atom_bytes == 3.5 * 4 * 3 * 16 * 16 * 128


PEAK = """
import ctypes, re, sys
ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: freed arrays leave the process
from dataclasses import replace
from pathlib import Path
import numpy as np
from ase.build import bulk
from helpers.mace_builds import real_crystals
from mace_bounds import load_model
from mace_bounds.structures import Crystal

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def peak(crystals):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is in use
    before = kilobytes("VmRSS")
    model.extract(crystals)
    return kilobytes("VmHWM"), kilobytes("VmHWM") - before

model = load_model("mini", device="cpu", memory_bytes=float(sys.argv[2]))
if sys.argv[1] == "mace":
    model = replace(model, fast=None)
small = real_crystals(40) * 10
cell = bulk("Cu", a=3.0, cubic=True) * (5, 5, 2)
dense = Crystal(cell.numbers, cell.positions, np.array(cell.cell))
model.extract([*small, dense])
print(*peak(small), *peak([*small[:200], dense, *small[200:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("forward, memory_bytes", [("fast", 40e6), ("mace", 250e6)])
def test_a_dense_cell_among_hundreds_of_small_ones_does_not_raise_the_peak_of_memory(forward, memory_bytes):
    run = forked.run(forked.python, PEAK, forward, memory_bytes)
    assert run.returncode == 0, run.stderr
    without, added_without, with_dense, added_with_dense = map(int, run.stdout.split())
    assert with_dense <= 1.2 * without
    assert 1024 * added_with_dense <= memory_bytes
    if forward == "mace":  # the batches are full: beside libraries and model, too, it makes no difference
        assert added_with_dense <= 1.2 * added_without
