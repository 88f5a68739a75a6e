"""Golden values: what tells a network from another one whose tensors look the same."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from helpers.mace_builds import TINY, build, calculator_energies
from helpers.pair_backbone import PairBackbone
from mace_bounds._io import parsed_json
from mace_bounds.backbones import Golden, golden_cells, golden_of, load_model
from mace_bounds.backbones.mace.identity import module_digest

BY_NEIGHBOURS = TINY | {
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
}


def a_module():
    return build(BY_NEIGHBOURS, numbers=(1, 3, 8, 26, 92))


@pytest.fixture(scope="module")
def module():
    return a_module()


@pytest.fixture(scope="module")
def golden(module):
    return golden_of(load_model(module, dtype="float64", device="cpu"))


def test_the_cells_hold_every_element_at_distances_of_bonds():
    from ase.data import covalent_radii

    cells = golden_cells([3, 8, 1, 92, 26])
    assert sorted(cell.numbers.tolist() for cell in cells) == [[1, 92], [3, 26], [8, 8]]
    for cell in cells:
        bond = covalent_radii[cell.numbers].sum()
        distances = cell.to_atoms().get_all_distances(mic=True)[0, 1]
        assert 0.95 * bond < distances < 1.15 * bond
        assert np.linalg.norm(cell.cell, axis=1).min() > 1.25 * bond


def test_energies_are_those_of_maces_calculator(golden, module):
    cells = golden_cells(golden.elements)
    assert {z for cell in cells for z in cell.numbers.tolist()} == set(golden.elements)
    wanted = calculator_energies(module, cells, None) / 2
    np.testing.assert_allclose(golden.energies_ev_per_atom, wanted, rtol=1e-7, atol=1e-7)
    assert parsed_json(Golden, json.dumps(asdict(golden))) == golden


def test_a_model_agrees_with_its_copies(golden, module):
    single = golden_of(load_model(a_module().float(), dtype="float64", device="cpu"))
    assert golden.difference(single) == ""
    for dtype in ("float32", "float64"):
        assert golden.difference(golden_of(load_model(module, dtype=dtype, device="cpu"))) == ""


def other_neighbours(module):
    for block in module.interactions:
        block.avg_num_neighbors *= 1.001


def other_cutoff_function(module):
    module.radial_embedding.cutoff_fn.p += 1


def other_order_of_features(module):
    """Two hidden values of the last readout change places: the same energies, other features."""
    readout = module.readouts[-1]
    n = readout.linear_2.weight.numel()
    first = readout.linear_1.weight.data.view(-1, n)
    first[:, [0, 1]] = first[:, [1, 0]].clone()
    readout.linear_2.weight.data[[0, 1]] = readout.linear_2.weight.data[[1, 0]].clone()


@pytest.mark.parametrize(
    ("change", "what", "same_tensors"),
    [
        (other_neighbours, r"energies differ by up to \S+ eV/atom \(\w+-\w+: \S+, not \S+\)", True),
        (other_cutoff_function, r"energies differ", True),
        (other_order_of_features, r"features differ", False),
    ],
)
def test_a_model_that_is_built_in_another_way_does_not(golden, change, what, same_tensors):
    changed = a_module()
    digest = module_digest(changed)
    change(changed)
    model = load_model(changed, dtype="float64", device="cpu")
    assert (model.digest == digest) == same_tensors
    difference = golden.difference(golden_of(model))
    assert re.search(what, difference)
    apart = np.abs(np.subtract(golden.energies_ev_per_atom, golden_of(model).energies_ev_per_atom)).max()
    assert apart < 1e-7 if "features" in what else f"up to {apart:.2g} eV/atom" in difference


def test_what_cannot_be_computed_or_compared():
    class Broken(PairBackbone):
        def extract(self, *_args, **_options):
            raise RuntimeError("out of order")

    assert golden_of(Broken()) is None
    assert golden_of(PairBackbone(shift_ev=np.nan, atomic_numbers=(1, 8))) is None
    fewer, more = PairBackbone(atomic_numbers=(1, 8)), PairBackbone(atomic_numbers=(1, 8, 26))
    assert "knows 3 elements" in golden_of(fewer).difference(golden_of(more))
    free = -0.02 * np.arange(95)
    free[8] = np.nan  # a model that has never seen oxygen
    partly = golden_of(PairBackbone(atomic_numbers=(1, 8, 26), free_atoms_ev=free))
    assert partly.energies_ev_per_atom == tuple(
        0.0 if 8 in cell.numbers else e
        for cell, e in zip(golden_cells((1, 8, 26)), golden_of(more).energies_ev_per_atom, strict=True)
    )
    good = golden_of(fewer)
    for wrong in (
        {"elements": ()},
        {"elements": (1, 200)},
        {"dtype": "float16"},
        {"energies_ev_per_atom": ()},
        {"elements": (1,), "energies_ev_per_atom": (0.0, 0.0), "features_per_atom": (0.0, 0.0)},
    ):
        with pytest.raises(ValueError, match="golden energies"):
            replace(good, **wrong)


def test_the_first_cells_are_compared_where_there_are_no_more(golden, module):
    few = golden_of(load_model(module, dtype="float64", device="cpu"), n_cells=2)
    np.testing.assert_allclose(few.energies_ev_per_atom, golden.energies_ev_per_atom[:2], rtol=1e-8)
    assert golden.difference(few) == few.difference(golden) == ""
    other = replace(few, energies_ev_per_atom=(few.energies_ev_per_atom[0], 7.0))
    assert golden.difference(other).startswith("of 2 built-in cells its energies differ by up to")
    elements = range(1, 90)
    assert {z // 30 for cell in golden_cells(elements)[:4] for z in cell.numbers.tolist()} == {0, 1, 2}
