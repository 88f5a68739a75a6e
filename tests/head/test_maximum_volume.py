"""D-optimality: brute force, dominance, invariances, streaming."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.errors import HeadError
from mace_bounds.head import ActiveSet, active_set

ROUND_OFF = 1e-9


def random_rows(seed: int, n: int = 300, columns: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, columns)) * rng.pareto(2.0, (n, 1))


def deficient_rows(seed: int) -> np.ndarray:
    """Ten columns of rank 7: three are combinations of others, on scales from 1e-3 to 1e3; one more is zero."""
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((200, 7))
    both = np.hstack([full, full @ rng.standard_normal((7, 3)), np.zeros((200, 1))])
    return both * 10.0 ** rng.uniform(-3, 3, both.shape[1])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_exchange_of_one_row_enlarges_the_volume(seed):
    a = np.random.default_rng(seed).standard_normal((15, 4))
    rows = active_set(a).rows
    volume = abs(np.linalg.det(a[rows]))
    for i in range(len(a)):
        for k in range(4):
            other = rows.copy()
            other[k] = i
            assert abs(np.linalg.det(a[other])) <= volume * (1.0 + ROUND_OFF)
    # Goreinov et al.: entries below 1 keep the volume within r^(r/2) of the largest
    largest = max(abs(np.linalg.det(a[list(c)])) for c in combinations(range(15), 4))
    assert largest / 4.0**2 <= volume <= largest * (1.0 + ROUND_OFF)


def test_the_rows_of_a_known_case():
    a = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [0.3, 0.3], [-5.0, 0.0]])
    chosen = active_set(a)
    assert sorted(chosen.rows) == [2, 4]
    # (x, y) = (-x/5)(-5, 0) + (y/2)(0, 2)
    np.testing.assert_allclose(
        chosen.grade([[10.0, 1.0], [1.0, -3.0], [2.5, 1.0]]), [2.0, 1.5, 0.5], rtol=1e-12
    )


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_training_rows_have_grades_up_to_one_and_the_active_rows_exactly_one(seed, deficient):
    a = deficient_rows(seed) if deficient else random_rows(seed)
    chosen = active_set(a)
    assert chosen.rank == np.linalg.matrix_rank(a / np.maximum(np.linalg.norm(a, axis=0), 1e-300), tol=1e-9)
    grade = chosen.grade(a)
    assert grade.max() <= 1.0 + 1e-9
    np.testing.assert_allclose(grade[chosen.rows], 1.0, rtol=1e-9)


def test_the_grade_is_the_coefficients_in_the_active_rows():
    a, b = random_rows(0), random_rows(1, 50)
    chosen = active_set(a)
    expected = np.abs(np.linalg.solve(a[chosen.rows].T, b.T)).max(axis=0)
    np.testing.assert_allclose(chosen.grade(b), expected, rtol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_order_blocks_and_units_of_the_rows_do_not_matter(seed):
    a, b = random_rows(seed), random_rows(seed + 1, 40)
    a = np.concatenate([a, a[:20], -a[20:30]])  # equal rows must not decide either
    rng = np.random.default_rng(seed)
    expected = active_set(a).grade(b)
    shuffled = a[rng.permutation(len(a))]
    np.testing.assert_allclose(active_set(shuffled).grade(b), expected, rtol=1e-7)
    np.testing.assert_allclose(active_set(lambda: np.array_split(a, 7)).grade(b), expected, rtol=1e-7)
    unit = 10.0 ** rng.uniform(-3, 3, a.shape[1])
    np.testing.assert_allclose(active_set(a * unit).grade(b * unit), expected, rtol=1e-7)


def test_rows_of_one_composition_tie_and_do_not_depend_on_their_order():
    """Fractions of few elements give equal coefficients; round-off must not choose between the rows."""
    rng = np.random.default_rng(5)
    pair = np.array([rng.choice(8, 2, replace=False) for _ in range(150)])
    a = np.zeros((len(pair), 12))
    a[np.arange(len(a)), pair[:, 0]] = a[np.arange(len(a)), pair[:, 1]] = 0.5
    a[:, 8:] = rng.standard_normal((len(a), 4))
    b = rng.standard_normal((30, 12))
    expected = active_set(a).grade(b)
    for seed in range(5):
        shuffled = a[np.random.default_rng(seed).permutation(len(a))]
        np.testing.assert_allclose(active_set(shuffled).grade(b), expected, rtol=1e-8)


def test_what_the_rows_never_had_is_far_outside():
    a = deficient_rows(3)
    chosen = active_set(a)
    new = a[:1].copy()
    new[0, -1] = 0.5  # the column that was zero throughout
    assert chosen.grade(new)[0] > 1e4
    broken = a[:1].copy()
    broken[0, 8] *= 2.0  # a dependence that held throughout
    assert chosen.grade(broken)[0] > 1e3


def test_blocks_are_read_piecewise_and_pass_by_pass():
    passes = 0

    def blocks():
        nonlocal passes
        passes += 1
        for k in range(40):
            yield np.random.default_rng(k).standard_normal((500, 10))

    chosen = active_set(blocks)
    assert passes < 40
    assert max(chosen.grade(block).max() for block in blocks()) <= 1.0 + 1e-9
    everything = np.concatenate(list(blocks()))
    np.testing.assert_allclose(chosen.grade(everything[chosen.rows]), 1.0, rtol=1e-9)


def test_few_rows_and_empty_rows_have_their_rank():
    one = active_set(np.array([[2.0, 4.0]]))
    assert one.rank == 1
    np.testing.assert_allclose(one.grade([[1.0, 2.0], [4.0, 8.0]]), [0.5, 2.0], rtol=1e-12)
    assert one.grade([[1.0, 2.1]])[0] > 1e3
    zero = active_set(np.zeros((3, 2)))
    assert zero.rank == 0
    np.testing.assert_array_equal(zero.grade(np.zeros((2, 2))), 0.0)


def test_bad_rows_are_refused():
    with pytest.raises(HeadError, match="there are none"):
        active_set(np.zeros((0, 3)))
    with pytest.raises(HeadError, match="NaN or infinity"):
        active_set(np.array([[1.0, np.nan]]))
    with pytest.raises(HeadError, match="columns of the active set"):
        active_set(np.eye(3)).grade(np.eye(2))


def test_it_survives_as_tensors():
    chosen = active_set(random_rows(7))
    again = ActiveSet.from_tensors(chosen.to_tensors())
    b = random_rows(8, 20)
    np.testing.assert_array_equal(again.grade(b), chosen.grade(b))
    with pytest.raises(KeyError):
        ActiveSet.from_tensors({})
