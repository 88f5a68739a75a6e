"""Vacancies, interstitials, surfaces and relaxed positions of a Lennard-Jones crystal, implicit and resampled."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from scipy.optimize import minimize

from helpers.lennard_jones import LennardJones
from mace_bounds.errors import StructureError
from mace_bounds.propagation import (
    EV_A3_IN_GPA,
    EnergySurface,
    Potential,
    curves,
    fault_path,
    interstitial_formation,
    minimum,
    relaxed_positions,
    resample,
    surface_energy,
    vacancy_formation,
)
from mace_bounds.propagation.builders import slab
from mace_bounds.structures import Crystal, read

MODEL = LennardJones(inner_a=4.0, cutoff_a=5.5)


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


@pytest.fixture(scope="module")
def potential():
    draws = np.random.default_rng(0).standard_normal((12, 3))
    return Potential(MODEL, MODEL.theta0_ev, MODEL.theta0_ev * (1 + 0.03 * draws))


@pytest.fixture(scope="module")
def fcc():
    return crystal(bulk("Ar", "fcc", 4.0))


def test_a_vacancy_costs_about_the_cohesive_energy(fcc, potential):
    """Exactly that in a lattice of pairs that does not relax; relaxed a little less."""
    state = curves(fcc, potential)
    (one,) = vacancy_formation(fcc, potential, shortest_a=7.0)
    assert one.name == "vacancy formation energy (32 sites)"
    assert 0.9 < one.value / -state.energy_ev[0] < 0.9999
    assert one.lower < one.value < one.upper
    assert one.method == "implicit"


def test_implicit_and_resampled_vacancies_agree(fcc, potential):
    few = Potential(MODEL, potential.mean_ev, potential.draws_ev[:3])
    implicit, resampled = (
        vacancy_formation(fcc, few, method=how, shortest_a=7.0)[0] for how in ("implicit", "resample")
    )
    assert implicit.std == pytest.approx(resampled.std, rel=0.02)
    assert resampled.failed_share == 0
    assert implicit.value == pytest.approx(resampled.value)


def test_a_dumbbell_is_costly(potential):
    (one,) = interstitial_formation(
        crystal(bulk("Ar", "fcc", 4.0)), Potential.frozen(MODEL), (1, 0, 0), shortest_a=7.0
    )
    cohesive = -curves(crystal(bulk("Ar", "fcc", 4.0)), potential).energy_ev[0]
    assert 2 < one.value / cohesive < 6  # Lennard-Jones: about four vacancies
    assert one.unit == "eV"
    assert one.name.startswith("100 dumbbell")


def test_a_surface_is_that_of_ase_relaxed_by_scipy(fcc):
    frozen = Potential.frozen(MODEL)
    state = curves(fcc, frozen)
    a = (4 * state.volume_a3[0]) ** (1 / 3)
    atoms = fcc111("Ar", (1, 1, 6), a=a, vacuum=6.0, periodic=True)
    made = Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)
    surface = EnergySurface.of(made, frozen)
    relaxed = minimize(surface.energy_and_gradient, np.zeros(surface.size), jac=True, method="BFGS")
    area = np.linalg.norm(np.cross(*made.cell[:2]))
    wanted = (relaxed.fun - 6 * state.energy_ev[0]) / (2 * area) * EV_A3_IN_GPA / 10
    (one,) = surface_energy(fcc, frozen, (1, 1, 1))
    assert one.value == pytest.approx(wanted, rel=2e-3)
    assert one.unit == "J/m²"


@pytest.mark.parametrize("noise", [0.0, 1e-8])
@pytest.mark.parametrize(
    ("atoms", "plane", "layers"),
    [
        (bulk("Cu"), (1, 1, 1), 6),
        (bulk("Cu", cubic=True), (1, 0, 0), 7),
        (bulk("W"), (1, 1, 0), 6),
        (bulk("W"), (-2, 1, -1), 9),
        (bulk("Mg"), (0, 0, 1), 5),
    ],
)
def test_layers_of_a_slab_are_whole(atoms, plane, layers, noise):
    """Round-off of the cell must not put half of a layer on the other side."""
    atoms.set_cell(
        atoms.cell.array + noise * np.random.default_rng(0).standard_normal((3, 3)), scale_atoms=True
    )
    made = slab(crystal(atoms), plane)
    normal = np.cross(made.cell[0], made.cell[1])
    heights = np.sort(made.positions @ normal / np.linalg.norm(normal))
    steps = np.diff(heights)
    assert len(made.numbers) == layers + (atoms.symbols[0] == "Mg")
    np.testing.assert_allclose(steps, steps[0], atol=1e-5)
    assert heights[-1] - heights[0] >= 10
    assert made.cell[2] @ normal / np.linalg.norm(normal) == pytest.approx(heights[-1] - heights[0] + 12)


def test_draws_are_relaxed_by_their_own_forces(potential):
    atoms = bulk("Ar", "fcc", 3.95).repeat((3, 2, 2))[1:]
    cell = Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)
    mean = minimum(potential, EnergySurface.of(cell, potential))
    found = resample(mean, potential.draws_ev)
    for k in (0, 5):
        own = EnergySurface(MODEL, cell, potential.draws_ev[k])
        direct = minimize(
            own.energy_and_gradient, np.zeros(own.size), jac=True, method="BFGS", options={"gtol": 1e-6}
        )
        assert found.energy_ev[k] == pytest.approx(direct.fun, abs=1e-6)
    results = {r.name: r for r in relaxed_positions(cell, potential)}
    again = {r.name: r for r in relaxed_positions(cell, potential, method="resample")}
    assert set(results) == set(again)
    for name, one in results.items():
        assert one.value == pytest.approx(again[name].value)
        assert one.std == pytest.approx(again[name].std, rel=0.1, abs=1e-4)


def test_a_draw_that_falls_apart_has_failed(potential):
    atoms = bulk("Ar", "fcc", 3.95).repeat((3, 2, 2))[1:]
    cell = Crystal(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array)
    mean = minimum(potential, EnergySurface.of(cell, potential))
    found = resample(mean, MODEL.theta0_ev * [[1.0, -1.0, 1.0], [1.01, 1.0, 1.0]])
    assert np.isnan(found.energy_ev[0])
    assert np.isfinite(found.energy_ev[1])


def test_a_path_is_linear_in_the_weights(fcc, potential):
    images = [crystal(bulk("Ar", "fcc", a)) for a in (4.0, 4.1)]
    (one,) = fault_path(images, potential)
    energies = [potential.energies_ev([image])[:, 0] for image in images]
    area = np.linalg.norm(np.cross(*images[0].cell[:2]))
    rise = (energies[1] - energies[0]) / area * EV_A3_IN_GPA / 10
    assert one.value == pytest.approx(rise[0])
    assert one.std == pytest.approx(rise[1:].std(ddof=1))
    with pytest.raises(StructureError, match="same atoms"):
        fault_path([fcc], potential)


def test_compounds_are_refused(potential):
    with pytest.raises(StructureError, match="chemical potentials"):
        vacancy_formation(crystal(bulk("NaCl", "rocksalt", 5.6)), potential)
