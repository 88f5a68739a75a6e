"""Levels: one order, one tolerance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mace_bounds.errors import HeadError
from mace_bounds.levels import LEVELS, TOLERANCE, Levels, parse_level, percent


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


@given(st.sampled_from(LEVELS), st.floats(-4e-10, 4e-10))
def test_a_level_may_be_written_in_several_ways(level, off):
    for text in (repr(level + off), f" {level + off!r} ", f"{100 * (level + off)!r}", f"{100 * level!r} %"):
        assert parse_level(text) == level
    assert Levels.of(LEVELS).nearest(level + off) == level


@given(
    st.text()
    | st.sampled_from(["", "%", "nan", "inf", "-0.95", "0", "1", "1e400", "0,95", "9" * 400, "0x1p-1"])
)
def test_other_texts_are_refused_with_a_way_to_write_it(text):
    try:
        level = parse_level(text)
    except ValueError as error:
        level, said = 0.5, str(error)
        assert "write 0.95, 95 or 95%" in said
    assert 0.01 <= level <= 0.999
