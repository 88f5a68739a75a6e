"""Tables in a shape that fits: numbers are whole at every width, and so are ids and flags."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from mace_bounds.cli.sheet import Sheet

NUMBERS = ("atoms", "E_DFT, 95 % (eV)", "error bounds (meV/atom)")


def made(rows):
    sheet = Sheet("id", "formula", *NUMBERS, "flags", numbers=NUMBERS)
    for row in rows:
        sheet.add(*row)
    return sheet


def lines(sheet, width):
    return [line.plain for line in sheet.lines(width)]


texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.just("wbm-" * 50),
    st.just("Na" * 100),
    st.just("岩塩" * 30),
    st.just("[/x][red]"),
)
numbers = st.floats(-1e6, 1e6).map(lambda value: f"{value:.3f} to {value:+.0f}")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(texts, texts, st.integers(1, 10**6).map(str), numbers, numbers, texts),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([40, 60, 79, 80, 111, 112, 120, 10_000]),
)
def test_numbers_are_never_cut_or_folded_and_no_line_is_wider_than_the_screen(rows, width):
    shown = lines(made(rows), width)
    assert all(cell_len(line) <= width for line in shown)
    for row in rows:
        for number in row[2:5]:
            assert any(number in line for line in shown)


@pytest.mark.parametrize("width", [60, 80, 112, 300])
def test_long_ids_wide_signs_and_flags_are_whole(width):
    row = ["wbm-3-" * 30, "岩" * 50, "8", "-35.995 to -33.190", "-140 to +141", "extrapolates, in_training"]
    together = re.sub(r"\s", "", "".join(lines(made([row]), width)))
    assert together.count("岩") == 50
    assert together.count("wbm-3-") + together.count("w") >= 30
    for flag in ("extrapolates", "in_training"):
        assert any(flag in line for line in lines(made([row]), width))


def test_shapes():
    row = ["Si.cif", "Si", "8", "-46.392 to -34.627", "-744 to +726", "extrapolates"]
    assert lines(made([row]), 112) == [
        "id      formula  atoms    E_DFT, 95 % (eV)  error bounds (meV/atom)  flags",
        "─" * 81,
        "Si.cif  Si           8  -46.392 to -34.627             -744 to +726  extrapolates",
    ]
    assert lines(made([row]), 60) == [
        "id      formula  flags",
        "  atoms    E_DFT, 95 % (eV)  error bounds (meV/atom)",
        "─" * 52,
        "Si.cif  Si       extrapolates",
        "      8  -46.392 to -34.627             -744 to +726",
    ]
    assert lines(made([row]), 30) == [
        "Si.cif",
        "  formula  Si",
        "  atoms  8",
        "  E_DFT, 95 % (eV)",
        "  -46.392 to -34.627",
        "  error bounds (meV/atom)",
        "  -744 to +726",
        "  flags  extrapolates",
    ]


def test_markup_and_escapes_are_text():
    sheet = Sheet("id", "n", numbers=["n"], title="[/t]")
    sheet.add("[red]\x1b[2J[/x]", "1")
    shown = lines(sheet, 80)
    assert shown[0] == "[/t]"
    assert shown[-1].startswith("[red]\\x1b[2J[/x]")
