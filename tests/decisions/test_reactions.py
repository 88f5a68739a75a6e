"""Reactions: balanced as pymatgen balances them, whatever way they are written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.reaction_calculator import Reaction as Reference
from pymatgen.core import Composition

from mace_bounds.decisions import parse_reaction
from mace_bounds.errors import StructureError


def unit(name):
    try:
        return {str(e): float(n) for e, n in Composition(name).items()}
    except ValueError:
        raise StructureError(f"{name} is unknown") from None


def test_an_id_may_begin_with_a_number():
    known = {"2D-1": {"C": 1.0}, "C": {"C": 1.0}}

    def of(name):
        if name not in known:
            raise StructureError(name)
        return known[name]

    assert parse_reaction("2D-1 -> C", of).names == ("2D-1", "C")
    assert parse_reaction("2 2D-1 -> 2C", of).coefficients == (-2.0, 2.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Li2O + Fe2O3 -> LiFeO2", "Li2O + Fe2O3 -> 2 LiFeO2"),
        ("Fe + O2 = Fe2O3", "4 Fe + 3 O2 -> 2 Fe2O3"),
        ("2 Fe + 3/2 O2 → Fe2O3", "2 Fe + 1.5 O2 -> Fe2O3"),
        ("TiO2 -> TiO2", "TiO2 -> TiO2"),
        ("2Fe + 1.5O2 -> Fe2O3", "2 Fe + 1.5 O2 -> Fe2O3"),
        ("0.5 * Li2O + 0.5 Fe2O3 => LiFeO2", "0.5 Li2O + 0.5 Fe2O3 -> LiFeO2"),
    ],
)
def test_reactions_are_balanced(text, expected):
    assert str(parse_reaction(text, unit)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Li2O + Fe2O3", "no reaction"),
        ("A -> B -> C", "no reaction"),
        ("-> Li", "no reaction"),
        ("1/0 Li2O -> Li2O", "no number"),
        (f"{10**400} Li2O -> Li2O", "no number"),
        ("Li2O -> Fe2O3", "in no way"),
        ("Fe + O2 -> FeO + Fe2O3", "several ways"),
        ("2 Fe + O2 -> Fe2O3", "do not balance"),
        ("FeO + Fe -> O2", "in no way|other side"),
        ("Fe + Fe2O3 + O2 -> FeO", "several ways"),
    ],
)
def test_what_does_not_balance_is_refused(text, why):
    with pytest.raises(StructureError, match=why):
        parse_reaction(text, unit)


@given(
    st.lists(st.sampled_from(["Li2O", "Fe2O3", "P2O5", "TiO2", "Na2O"]), min_size=2, max_size=4, unique=True),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_numbers_are_those_of_pymatgen(oxides, data):
    numbers = data.draw(st.lists(st.integers(1, 6), min_size=len(oxides), max_size=len(oxides)))
    product = sum((n * Composition(o) for n, o in zip(numbers, oxides, strict=True)), Composition())
    name = product.formula.replace(" ", "")
    found = parse_reaction(f"{' + '.join(oxides)} -> {name}", unit)
    reference = Reference([Composition(o) for o in oxides], [product])
    ratio = found.coefficients[-1] / reference.get_coeff(product)
    for oxide, c in zip(oxides, found.coefficients, strict=False):
        assert c / ratio == pytest.approx(reference.get_coeff(Composition(oxide)), rel=1e-9)
