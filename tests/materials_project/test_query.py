"""What a query says, and the searches it becomes."""

from __future__ import annotations

import pytest

from mace_bounds.errors import SourceError
from mace_bounds.materials_project import Query, is_query, parse_query


@pytest.mark.parametrize(
    ("text", "query", "written"),
    [
        ("mp:Li-Fe-P-O", Query(chemsys=("Fe-Li-O-P",)), "mp:chemsys=Fe-Li-O-P"),
        ("mp:Fe", Query(chemsys=("Fe",)), "mp:chemsys=Fe"),
        ("mp:Li-*", Query(chemsys=("Li-*",)), "mp:chemsys=Li-*"),
        ("mp:Li-O,Fe-O", Query(chemsys=("Li-O", "Fe-O")), "mp:chemsys=Li-O,Fe-O"),
        ("mp:elements=Li,Fe", Query(elements=("Fe", "Li")), "mp:elements=Fe,Li"),
        ("mp:within=Li-Fe-O", Query(within=("Fe", "Li", "O")), "mp:within=Fe-Li-O"),
        ("mp:within=Li,Fe,O", Query(within=("Fe", "Li", "O")), "mp:within=Fe-Li-O"),
        ("mp:LiFePO4", Query(formula=("LiFePO4",)), "mp:formula=LiFePO4"),
        ("mp:formula=Ca(OH)2,NaCl", Query(formula=("Ca(OH)2", "NaCl")), "mp:formula=Ca(OH)2,NaCl"),
        ("mp:mp-149, mp-13,mp-149", Query(ids=("mp-149", "mp-13")), "mp:ids=mp-149,mp-13"),
        ("mp:mvc-12", Query(ids=("mvc-12",)), "mp:ids=mvc-12"),
        ("mp:hull=0.05", Query(hull=(None, 0.05)), "mp:hull=..0.05"),
        (
            "mp:elements=Li,Fe,hull=0.01..0.1,nsites=40",
            Query(elements=("Fe", "Li"), hull=(0.01, 0.1), nsites=(None, 40)),
            "mp:elements=Fe,Li,hull=0.01..0.1,nsites=..40",
        ),
        ("mp:Li-O,nsites=8..8", Query(chemsys=("Li-O",), nsites=(8, 8)), "mp:chemsys=Li-O,nsites=8..8"),
        ("mp:all", Query(), "mp:all"),
        ("mp:all,nsites=20..", Query(nsites=(20, None)), "mp:nsites=20.."),
    ],
)
def test_queries_are_read_and_written(text, query, written):
    assert is_query(text)
    assert parse_query(text) == query
    assert str(query) == written
    assert parse_query(written) == query


def test_one_search_but_for_elements():
    (search,) = parse_query("mp:within=Li-Fe,hull=0.1").searches()
    assert search == {
        "thermo_types": ["GGA_GGA+U"],
        "energy_above_hull": (None, 0.1),
        "chemsys": ["Fe", "Li", "Fe-Li"],
    }
    systems = [search["chemsys"] for search in parse_query("mp:elements=Li,Fe").searches()]
    assert systems[:3] == ["Fe-Li", "Fe-Li-*", "Fe-Li-*-*"]
    assert len(systems) == 9  # 2 to 10 elements
    assert parse_query("mp:mp-1,mp-2").searches() == [
        {"thermo_types": ["GGA_GGA+U"], "material_ids": ["mp-1", "mp-2"]}
    ]


def test_the_whole_database_is_what_has_nothing_to_choose_by():
    assert parse_query("mp:all").everything
    assert parse_query("mp:nsites=20").everything
    assert not parse_query("mp:hull=0.1").everything
    assert not parse_query("mp:Li").everything


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Li-Fe", "does not begin with mp:"),
        ("mp:", "is no query of the Materials Project"),
        ("mp:nonsense!", "is no query of the Materials Project"),
        ("mp:Li-Xx", "no chemical element"),
        ("mp:Li-Li", "twice"),
        ("mp:Li-*,Fe-*", "stand alone"),
        ("mp:elements=Li,*", "no chemical element"),
        ("mp:elements=", "at most one of"),
        ("mp:elements=Li,formula=LiF", "at most one of"),
        ("mp:colour=red", "'colour' is no key"),
        ("mp:hull=a", "hull=MOST"),
        ("mp:hull=0.2..0.1", "hull=MOST"),
        ("mp:hull=..", "hull=MOST"),
        ("mp:hull=nan..1", "hull=MOST"),
        ("mp:hull=1,2", "hull=MOST"),
        ("mp:nsites=1..x", "in atoms"),
        ("mp:hull=1,hull=2", "twice"),
        ("mp:ids=149", "write ids as"),
        ("mp:formula=ABO3", "no chemical formula"),
        ("mp:formula=Qq2", "no chemical formula"),
        ("mp:within=H-He-Li-Be-B-C-N-O-F", "at most 8"),
    ],
)
def test_what_is_no_query_is_one_sentence(text, words):
    with pytest.raises(SourceError, match=r"^[^\n;]+; [^\n;]+\.$") as caught:
        parse_query(text)
    assert words in str(caught.value)
