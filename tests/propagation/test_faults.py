"""Stacking faults: stacks made by hand, periods, relaxation across the plane, envelopes by the corners of the box."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from helpers.lennard_jones import LennardJones
from mace_bounds.errors import StructureError
from mace_bounds.head import POSTERIORS, Coefficients
from mace_bounds.propagation import EV_A3_IN_GPA, Potential, curves, fault_path, gamma_line
from mace_bounds.propagation.builders import slip, slipped
from mace_bounds.structures import Crystal, read

MODEL = LennardJones(inner_a=4.0, cutoff_a=5.5)


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


def stack(letters: str, distance: float) -> Atoms:
    """Close-packed layers with one atom each, in the order of the letters."""
    side = distance * np.array([[1.0, 0, 0], [0.5, np.sqrt(0.75), 0]])
    height = distance * np.sqrt(2 / 3)
    places = {letter: k * (side[0] + side[1]) / 3 for k, letter in enumerate("ABC")}
    positions = [places[letter] + [0, 0, k * height] for k, letter in enumerate(letters)]
    cell = [*side, [0, 0, height * len(letters)]]
    return Atoms(f"Ar{len(letters)}", positions=positions, cell=cell, pbc=True)


def coefficients():
    box = POSTERIORS["hypercube"].from_tensors(
        {"lower": np.array([-0.1, -0.2]), "upper": np.array([0.2, 0.1])}, 2
    )
    axes = np.array([[0.03, 0.01], [-0.01, 0.02], [0.0, 0.0]])
    return Coefficients(MODEL.theta0_ev, axes, box, box)


def test_an_intrinsic_fault_is_the_stack_without_a_layer():
    potential = Potential.frozen(MODEL)
    cell = crystal(bulk("Ar", "fcc", 4.0))
    a = (4 * curves(cell, potential).volume_a3[0]) ** (1 / 3)
    distance = a / np.sqrt(2)
    perfect, faulty = (
        float(potential.energies_ev([crystal(stack(s, distance))])[0, 0]) for s in ("ABCABCABC", "ABCABCBC")
    )
    area = distance**2 * np.sqrt(0.75)
    wanted = (faulty - 8 / 9 * perfect) / area * EV_A3_IN_GPA / 10
    line = gamma_line(cell, potential, (1, 1, 1), (1, 1, -2), n_images=6, method="curves")
    assert len(line) == 5
    assert line[1].name == f"fault (111)[11-2] at 0.333 of {a * np.sqrt(1.5):.3f} Å"
    assert line[1].value == pytest.approx(wanted, rel=1e-3)
    assert max(r.value for r in line) == line[3].value  # A on A


@pytest.mark.parametrize(
    ("atoms", "plane", "direction", "length"),
    [
        (bulk("W"), (1, 1, 0), (1, -1, 1), np.sqrt(3) / 2),
        (bulk("W"), (-2, 1, 1), (1, 1, 1), np.sqrt(3) / 2),
        (bulk("Ar", "fcc", 4.0), (1, 1, 1), (1, -1, 0), np.sqrt(0.5)),
        (bulk("NaCl", "rocksalt", 5.0), (1, 0, 0), (0, 1, 1), np.sqrt(0.5)),
        (bulk("Si"), (1, 1, 1), (1, 1, -2), np.sqrt(1.5)),
    ],
)
def test_a_slip_by_its_vector_changes_nothing(atoms, plane, direction, length):
    cell = crystal(atoms)
    whole, vector = slip(cell, plane, direction)
    a = (cell.volume * (2 if cell.formula == "W" else 4)) ** (1 / 3)
    assert np.linalg.norm(vector) == pytest.approx(length * a)
    assert abs(np.cross(whole.cell[0], whole.cell[1]) @ vector) < 1e-8
    assert whole.volume / len(whole.numbers) == pytest.approx(cell.volume / len(cell.numbers))
    features = MODEL.extract([whole, slipped(whole, vector), cell, slipped(whole, 0.5 * vector)]).features
    np.testing.assert_allclose(features[1], features[0], rtol=1e-9)
    np.testing.assert_allclose(features[0] / len(whole.numbers), features[2] / len(cell.numbers), rtol=1e-9)
    assert abs(features[3, 0] / features[0, 0] - 1) > 1e-3


def test_diamond_is_cut_where_few_bonds_are():
    """In the shuffle set: the gap of √3/4 a between pairs of layers, not that of √3/12 a."""
    whole, _ = slip(crystal(bulk("Si")), (1, 1, 1), (1, 1, -2))
    normal = np.cross(whole.cell[0], whole.cell[1])
    heights = np.sort(whole.positions @ normal / np.linalg.norm(normal))
    top = abs(whole.cell[2] @ normal) / np.linalg.norm(normal)
    assert heights[0] + top - heights[-1] == pytest.approx(5.43 * np.sqrt(3) / 4, rel=1e-3)


def test_atoms_relax_across_the_plane_alone():
    cell = crystal(bulk("Ar", "fcc", 4.0))
    draws = MODEL.theta0_ev * (1 + 0.02 * np.random.default_rng(0).standard_normal((4, 3)))
    potential = Potential(MODEL, MODEL.theta0_ev, draws)
    rigid, implicit, every = (
        gamma_line(cell, potential, (1, 1, 1), (1, 1, -2), n_images=2, method=how)[0]
        for how in ("curves", "implicit", "resample")
    )
    assert 0.2 * rigid.value < implicit.value < 0.7 * rigid.value
    assert implicit.std == pytest.approx(every.std, rel=0.02)
    assert "along the normal" in " ".join(implicit.assumed)
    # brute force: one height for each of the layers
    from scipy.optimize import minimize

    v0 = curves(cell, potential).volume_a3[0]
    whole, vector = slip(crystal(bulk("Ar", "fcc", (4 * v0) ** (1 / 3))), (1, 1, 1), (1, 1, -2))
    image = slipped(whole, 0.5 * vector)
    normal = np.cross(whole.cell[0], whole.cell[1])
    area = np.linalg.norm(normal)

    def energy(heights):
        places = image.positions + heights[:, None] * normal / area
        return MODEL.extract([Crystal(image.numbers, places, image.cell)]).energy_ev[0]

    found = minimize(energy, np.zeros(len(image.numbers)), method="BFGS", options={"gtol": 1e-4})
    wanted = (found.fun - MODEL.extract([whole]).energy_ev[0]) / area * EV_A3_IN_GPA / 10
    assert implicit.value == pytest.approx(wanted, rel=1e-3)


def test_the_envelope_is_that_of_the_corners():
    given = coefficients()
    potential = Potential.of(MODEL, given, 500)
    images = [crystal(bulk("Ar", "fcc", a)) for a in (4.0, 4.1)]
    (one,) = fault_path(images, potential)
    area = np.linalg.norm(np.cross(*images[0].cell[:2]))
    rows = potential.rows(images).features
    corners = [given.mean + given.axes @ np.array(b) for b in product((-0.1, 0.2), (-0.2, 0.1))]
    values = [(rows[1] - rows[0]) @ theta / area * EV_A3_IN_GPA / 10 for theta in corners]
    assert [one.envelope_lower, one.envelope_upper] == pytest.approx([min(values), max(values)])
    assert one.envelope_lower <= one.lower < one.value < one.upper <= one.envelope_upper
    row = one.to_row()
    assert row["envelope_upper"] == one.envelope_upper


def test_a_direction_out_of_the_plane_is_refused():
    with pytest.raises(StructureError, match="is not in the plane"):
        slip(crystal(bulk("W")), (1, 1, 0), (1, 1, 0))
