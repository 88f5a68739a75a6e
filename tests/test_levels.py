"""Levels: one order, one tolerance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mace_bounds.errors import HeadError
from mace_bounds.levels import LEVELS, TOLERANCE, Levels, percent


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20))
def test_they_are_sorted_apart_and_found_again(values):
    levels = Levels.of(values)
    assert all(b - a > TOLERANCE for a, b in zip(levels.values, levels.values[1:], strict=False))
    for value in values:
        assert value in levels
        assert abs(levels.values[levels.index(value)] - value) <= TOLERANCE


def test_a_level_that_is_no_binary_number_is_the_same_however_it_was_computed():
    levels = Levels.of(LEVELS)
    assert levels.index(1 - 0.05) == levels.index(0.95) == levels.index(19 / 20)
    assert 0.951 not in levels
    assert "0.95" not in levels


def test_what_is_not_there_or_no_level_is_refused():
    with pytest.raises(HeadError, match=r"levels 0\.68, 0\.9, 0\.95, 0\.99, not for 0\.5"):
        Levels.of(LEVELS).index(0.5)
    for value in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(HeadError, match="not between 0 and 1"):
            Levels.of([value])


def test_percent():
    assert [percent(level) for level in (0.68, 0.95, 0.995)] == ["68", "95", "99.5"]
