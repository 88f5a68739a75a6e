"""Text from outside becomes one printable line, and names become unique without searching twice."""

from __future__ import annotations

from enum import Enum

import pytest

from mace_bounds.structures import as_mapping, as_text, clean, one_line
from mace_bounds.structures.text import UniqueNames


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  a \n\t b  ", "a b"),
        ("a\x1b[31mb\u202ec\x07", "a [31mb c"),
        ("x" * 50, "x" * 17 + "..."),
        (3.5, "3.5"),
    ],
)
def test_one_printable_line_of_limited_length(text, line):
    assert clean(text, 20) == line


def test_an_exception_is_a_clause_without_a_final_stop():
    assert one_line(ValueError("bad thing.\n at line 3. ")) == "bad thing. at line 3"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(MemoryError("1 GB")) == "out of memory"
    assert len(one_line(ValueError("word " * 100), 40)) <= 40


def test_values_of_unknown_type():
    class Colour(Enum):
        red = "RED"

    assert as_mapping({"a": 1}) == {"a": 1}
    assert as_mapping([1]) == as_mapping(None) == {}
    assert [as_text(value) for value in (None, "x", 3, Colour.red)] == [None, "x", "3", "RED"]


class CountingSet(set):
    """A set that counts how often it is asked."""

    asked = 0

    def __contains__(self, item):
        self.asked += 1
        return super().__contains__(item)


def test_names_become_unique_in_linear_time():
    taken = CountingSet()
    unique = UniqueNames(taken)
    names = [unique("x") for _ in range(100_000)]
    assert names[:3] == ["x", "x~2", "x~3"]
    assert names[-1] == "x~100000"
    assert len(set(names)) == 100_000
    assert taken.asked < 4 * 100_000  # a search from x~2 on would ask 5e9 times


def test_numbers_that_the_source_itself_uses_are_left_out():
    unique = UniqueNames()
    assert [unique(name) for name in ("x~2", "x", "x", "x", "x~2", "x~3", "x")] == [
        "x~2", "x", "x~3", "x~4", "x~2~2", "x~3~2", "x~5"
    ]  # fmt: skip
