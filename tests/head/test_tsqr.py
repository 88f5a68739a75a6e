import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.errors import HeadError
from mace_bounds.head import TsqrFactor
from mace_bounds.head.chunks import QrAccumulator


def solve(factor):
    """Least squares for [1 X] from the factor."""
    r = factor.r
    return np.linalg.solve(r[:-1, :-1], r[:-1, -1])


def test_factor_is_that_of_the_weighted_rows():
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((50, 4)), rng.standard_normal(50), rng.gamma(2.0, size=50)
    w[7] = 0.0
    factor = TsqrFactor(4)
    for rows in np.array_split(np.arange(50), 7):
        factor.update(x[rows], y[rows], w[rows])
    a = np.sqrt(w)[:, None] * np.column_stack([np.ones(50), x, y])
    assert np.allclose(factor.r.T @ factor.r, a.T @ a, rtol=1e-13, atol=1e-12)
    assert (factor.n_total, factor.n_rows) == (50, 49)
    assert factor.weight_sum == pytest.approx(w.sum(), rel=1e-14)
    kept = x[w > 0]
    assert np.array_equal(factor.minimum, kept.min(axis=0))
    assert np.array_equal(factor.maximum, kept.max(axis=0))
    assert (np.diagonal(factor.r) >= 0.0).all()


def test_keeps_digits_where_a_gram_matrix_loses_all():
    # condition 1e8: the Gram matrix has 1e16; the exact answer is known by construction
    rng = np.random.default_rng(1)
    n, p = 3000, 12
    u, _ = np.linalg.qr(rng.standard_normal((n, p)))
    v, _ = np.linalg.qr(rng.standard_normal((p, p)))
    x = (u * np.geomspace(1.0, 1e-8, p)) @ v.T
    truth = rng.standard_normal(p)
    y = x @ truth
    factor = TsqrFactor(p)
    for start in range(0, n, 100):
        factor.update(x[start : start + 100], y[start : start + 100])
    ours = solve(factor)[1:]
    lstsq = np.linalg.lstsq(np.column_stack([np.ones(n), x]), y, rcond=None)[0][1:]
    gram = np.linalg.solve(x.T @ x, x.T @ y)
    scale = np.abs(truth).max()
    assert np.abs(ours - truth).max() / scale < 1e-6
    assert np.abs(lstsq - truth).max() / scale < 1e-6
    assert np.abs(gram - truth).max() / scale > 1e-2


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 10**6))
def test_merging_workers_equals_one_worker(sizes, seed):
    rng = np.random.default_rng(seed)
    one, merged = TsqrFactor(3), TsqrFactor(3)
    for size in sizes:
        x, y, w = rng.standard_normal((size, 3)) + 5.0, rng.standard_normal(size), rng.random(size) + 0.1
        one.update(x, y, w)
        merged.merge(TsqrFactor(3).update(x, y, w))
    assert one.r.shape == merged.r.shape
    assert np.allclose(one.r, merged.r, rtol=0, atol=1e-12 * max(1.0, np.abs(one.r).max(initial=0.0)))
    assert (one.n_rows, one.n_total) == (merged.n_rows, merged.n_total)
    assert one.weight_sum == pytest.approx(merged.weight_sum, rel=1e-13)


def test_large_and_small_blocks_agree():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((9000, 5))
    whole, pieces = QrAccumulator(5), QrAccumulator(5)
    whole.add(a)
    for block in np.array_split(a, 1234):
        pieces.add(block)
    assert np.allclose(whole.r, pieces.r, rtol=0, atol=1e-11)
    assert np.allclose(np.abs(whole.r), np.abs(np.linalg.qr(a, mode="r")), rtol=0, atol=1e-11)


def test_fewer_rows_than_columns_and_columns_of_zeros():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((7, 30)) * (np.arange(30) % 4 > 0)  # more columns than tpqrt takes at a time
    few = QrAccumulator(30)
    for row in a:
        few.add(row[None, :])
    assert few.r.shape == (30, 30)
    assert np.array_equal(few.r, np.triu(few.r))
    assert np.allclose(few.r.T @ few.r, a.T @ a, rtol=0, atol=1e-13)
    assert not few.r[:, ::4].any()


def test_rows_given_are_left_alone():
    for order in ("C", "F"):
        a = np.random.default_rng(4).standard_normal((1500, 3)).copy(order=order)
        before = a.copy()
        QrAccumulator(3).add(a)
        assert np.array_equal(a, before)


def test_refuses_other_columns():
    with pytest.raises(HeadError, match="cannot be merged"):
        TsqrFactor(3).merge(TsqrFactor(4))
    with pytest.raises(HeadError, match="x has the shape"):
        TsqrFactor(3).update(np.zeros((2, 4)), np.zeros(2))
