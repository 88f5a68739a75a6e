"""Elastic constants: lattice sums, direct relaxation of ions, rotations, averages."""

import numpy as np
import pytest
from ase.build import bulk
from scipy.optimize import minimize

from helpers.lennard_jones import LennardJones
from mace_bounds.errors import StructureError
from mace_bounds.propagation import (
    EV_A3_IN_GPA,
    Potential,
    central_stencil,
    curves,
    deformed,
    elastic_constants,
    elastic_curves,
    hill_averages,
    rotated,
)
from mace_bounds.structures import Crystal, read, symmetry_of


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


@pytest.fixture(scope="module")
def potential():
    model = LennardJones()
    rng = np.random.default_rng(1)
    return Potential(model, model.theta0_ev, model.theta0_ev * (1 + 0.02 * rng.standard_normal((30, 3))))


def lattice_sum(model, atoms) -> np.ndarray:
    """C_ijkl of a monatomic crystal of pairs at zero pressure; M. Born and K. Huang (1954), section 11."""
    from ase.neighborlist import neighbor_list

    d, vectors = neighbor_list("dD", atoms, model.cutoff_a)
    h = 1e-3
    first = (model.pair_ev(d + h) - model.pair_ev(d - h)) / (2 * h)
    second = (model.pair_ev(d + h) - 2 * model.pair_ev(d) + model.pair_ev(d - h)) / h**2
    outer = np.einsum("ni,nj,nk,nl->nijkl", *[vectors] * 4)
    sums = np.einsum("n,nijkl->ijkl", (second - first / d) / d**2, outer)
    return sums / (2 * atoms.get_volume()) * EV_A3_IN_GPA


def test_fcc_constants_are_the_lattice_sums(potential):
    cell = crystal(bulk("Ar", "fcc", 4.0))
    v0 = curves(cell, potential).volume_a3[0]
    found = {r.name: r for r in elastic_constants(cell, potential)}
    atoms = bulk("Ar", "fcc", (4 * v0) ** (1 / 3))
    c = lattice_sum(LennardJones(), atoms)
    assert found["C11"].value == pytest.approx(c[0, 0, 0, 0], rel=5e-3)
    assert found["C12"].value == pytest.approx(c[0, 0, 1, 1], rel=5e-3)
    assert found["C44"].value == pytest.approx(c[1, 2, 1, 2], rel=5e-3)
    assert found["C12"].value == pytest.approx(found["C44"].value, rel=5e-3)  # Cauchy: central forces
    assert found["K_VRH"].value == pytest.approx((c[0, 0, 0, 0] + 2 * c[0, 0, 1, 1]) / 3, rel=5e-3)
    assert set(found) == {"C11", "C12", "C44", "K_VRH", "G_VRH"}
    assert all(r.lower < r.value < r.upper and r.failed_share == 0 for r in found.values())


def test_every_draw_has_the_constants_of_its_own_potential(potential):
    cell = crystal(bulk("Ar", "fcc", 4.0))
    many = elastic_curves(cell, potential).constants_gpa
    for k in (3, 11):
        alone = LennardJones(weights_ev=potential.draws_ev[k - 1, :2])
        single = elastic_curves(cell, Potential.frozen(alone)).constants_gpa[0]
        np.testing.assert_allclose(many[k], single, rtol=3e-3, atol=3e-3 * single[0, 0])


def test_relaxed_ions_are_those_of_a_direct_minimisation():
    """The two atoms of hcp move against each other under shear: minimise over that at strains, by brute force."""
    cell = crystal(bulk("Ar", "hcp", a=2.75, c=4.5))
    model = LennardJones()
    frozen = Potential.frozen(model)
    symmetry = symmetry_of(cell)
    v0 = curves(cell, frozen).volume_a3[0]
    standard = rotated(cell, symmetry.to_standard)
    scale = (v0 / cell.volume) ** (1 / 3)
    standard = Crystal(standard.numbers, standard.positions * scale, standard.cell * scale)

    def relaxed_ev(strain):
        def energy(move):
            return float(frozen.energies_ev([deformed(standard, strain, [move, np.zeros(3)])])[0, 0])

        return minimize(energy, np.zeros(3), method="BFGS", options={"gtol": 1e-5}).fun

    h, zero = 0.01, relaxed_ev(np.zeros(6))
    direct = []
    for k in (2, 5):
        e = np.zeros(6)
        e[k] = h
        direct.append((relaxed_ev(e) + relaxed_ev(-e) - 2 * zero) / h**2 / v0 * EV_A3_IN_GPA)
    relaxed = elastic_curves(cell, frozen).constants_gpa[0]
    clamped = elastic_curves(cell, frozen, "clamped").constants_gpa[0]
    assert relaxed[[2, 5], [2, 5]] == pytest.approx(direct, rel=1e-2)
    assert relaxed[0, 0] < 0.99 * clamped[0, 0]
    names = {r.name for r in elastic_constants(cell, frozen)}
    assert names == {"C11", "C12", "C13", "C33", "C44", "K_VRH", "G_VRH"}
    assert relaxed[5, 5] == pytest.approx((relaxed[0, 0] - relaxed[0, 1]) / 2, rel=1e-6)  # hexagonal


def test_the_orientation_and_choice_of_the_cell_do_not_matter(potential):
    atoms = bulk("Ar", "fcc", 4.0)
    one = [r.value for r in elastic_constants(crystal(atoms), potential)]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    cube = crystal(bulk("Ar", "fcc", 4.0, cubic=True))
    two = [r.value for r in elastic_constants(rotated(cube, turn), potential)]
    np.testing.assert_allclose(one, two, rtol=2e-3)


def test_what_was_assumed_is_said(potential):
    hcp = crystal(bulk("Ar", "hcp", a=2.75, c=5.2))  # far from the ideal ratio of axes: under shear stress
    first = elastic_constants(hcp, potential)[0]
    assert any("shear stress" in sentence for sentence in first.assumed)
    assert any("ions are relaxed" in sentence for sentence in first.assumed)
    clamped = elastic_constants(hcp, potential, ions="clamped")[0]
    assert any("clamped" in sentence for sentence in clamped.assumed)
    big = bulk("Ar", "fcc", 4.0).repeat(2)
    big.numbers[:4] = [10, 11, 12, 13]
    with pytest.raises(StructureError, match="--ions clamped"):
        elastic_constants(crystal(big), potential)


def test_an_unstable_lattice_is_no_interval():
    model = LennardJones()
    simple = crystal(bulk("Ar", "sc", 2.8))  # without resistance to shear
    results = {
        r.name: r
        for r in elastic_constants(
            simple, Potential(model, model.theta0_ev, np.tile(model.theta0_ev, (9, 1)))
        )
    }
    assert results["C44"].failed_share == 1
    assert all(one.lower is None and one.std is None for one in results.values())
    assert "unstable" in " ".join(results["C44"].assumed)


def test_averages_of_an_isotropic_solid_are_its_moduli():
    bulk_gpa, shear_gpa = 120.0, 45.0
    c = np.zeros((6, 6))
    c[:3, :3] = bulk_gpa - 2 * shear_gpa / 3
    c[:3, :3] += 2 * shear_gpa * np.eye(3)
    c[3:, 3:] = shear_gpa * np.eye(3)
    k, g = hill_averages(np.stack([c, np.full((6, 6), np.nan)]))
    assert [k[0], g[0]] == pytest.approx([bulk_gpa, shear_gpa])
    assert np.isnan([k[1], g[1]]).all()


def test_averages_agree_with_pymatgen():
    from pymatgen.analysis.elasticity import ElasticTensor

    rng = np.random.default_rng(3)
    m = rng.standard_normal((6, 6))
    c = m @ m.T + 20 * np.eye(6)
    other = ElasticTensor.from_voigt(c)
    k, g = hill_averages(c[None])
    assert [k[0], g[0]] == pytest.approx([other.k_vrh, other.g_vrh])


def test_the_stencil_is_exact_for_a_polynomial_of_second_degree():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 4)), rng.standard_normal(4)
    a = a + a.T
    stencil = central_stencil([0.1, 0.2, 0.05, 0.3])
    values = np.array([0.5 * p @ a @ p + b @ p - 7 for p in stencil.points])
    np.testing.assert_allclose(stencil.hessian(values[None])[0], a, atol=1e-10)
    np.testing.assert_allclose(stencil.gradient(values[None])[0], b, atol=1e-10)
