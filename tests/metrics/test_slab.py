import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mace_bounds.errors import HeadError
from mace_bounds.metrics import worst_slab_coverage
from mace_bounds.metrics.groups import lowest_window


@given(arrays(np.float64, st.integers(1, 25), elements=st.sampled_from([0.0, 1.0])), st.data())
def test_lowest_window_against_every_window(values, data):
    shortest = data.draw(st.integers(1, values.size))
    start, stop = lowest_window(values, shortest)
    brute = min(values[a:b].mean() for a in range(values.size) for b in range(a + shortest, values.size + 1))
    assert stop - start >= shortest
    assert values[start:stop].mean() == pytest.approx(brute, abs=1e-12)


def test_a_planted_hole_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3))
    hole = x[:, 1] > 1.0  # 16 % of the rows
    hit = rng.random(4000) < np.where(hole, 0.5, 0.97)
    assert worst_slab_coverage(hit, x, seed=1) == pytest.approx(0.5, abs=0.08)


def test_even_coverage_is_not_made_to_look_bad():
    rng = np.random.default_rng(1)
    hit = rng.random(8000) < 0.9
    assert worst_slab_coverage(hit, rng.normal(size=(8000, 3)), seed=2) > 0.86


def test_too_few_rows_are_refused():
    with pytest.raises(HeadError, match="it takes 20 rows"):
        worst_slab_coverage(np.ones(5), np.ones((5, 2)))
