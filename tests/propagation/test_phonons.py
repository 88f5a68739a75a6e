"""Phonon frequencies: lattice sums, ase.phonons, and one calculation a draw."""

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_masses
from ase.neighborlist import neighbor_list

from helpers.lennard_jones import LennardJones
from mace_bounds.backbones import load_model
from mace_bounds.propagation import Potential, curves, force_constants, phonon_frequencies
from mace_bounds.propagation.phonons import TO_THZ, wave_vectors
from mace_bounds.structures import Crystal, read

MODEL = LennardJones(inner_a=4.0, cutoff_a=5.5)


def crystal(atoms) -> Crystal:
    return next(iter(read([atoms]))).crystal


def lattice_sum_thz(model, atoms, q):
    """Frequencies of one atom a cell: m ω² are the values of Σ_R φ_ab(R) (1 - cos q·R), φ_ab of the pair potential."""
    d, vectors = neighbor_list("dD", atoms, model.cutoff_a)
    h = 1e-3
    first = (model.pair_ev(d + h) - model.pair_ev(d - h)) / (2 * h)
    second = (model.pair_ev(d + h) - 2 * model.pair_ev(d) + model.pair_ev(d - h)) / h**2
    waves = 1 - np.cos(2 * np.pi * vectors @ np.linalg.inv(atoms.cell.array) @ q)
    along = np.einsum("n,ni,nj->ij", (second - first / d) / d**2 * waves, vectors, vectors)
    matrix = along + np.eye(3) * np.sum(first / d * waves)
    return TO_THZ * np.sqrt(np.linalg.eigvalsh(matrix) / atoms.get_masses()[0])


def test_the_unit_is_that_of_codata():
    assert pytest.approx(15.633302, rel=1e-6) == TO_THZ  # as phonopy has it for eV, Å and amu


def test_fcc_frequencies_are_lattice_sums():
    potential = Potential.frozen(MODEL)
    cell = crystal(bulk("Ar", "fcc", 4.0))
    v0 = curves(cell, potential).volume_a3[0]
    atoms = bulk("Ar", "fcc", (4 * v0) ** (1 / 3))
    found = {r.name: r for r in phonon_frequencies(cell, potential)}
    at_l = lattice_sum_thz(MODEL, atoms, [0, 0, 0.5])
    at_x = lattice_sum_thz(MODEL, atoms, [0, 0.5, 0.5])
    wanted = {
        "phonon (0 0 1/2) 1-2": at_l[0],
        "phonon (0 0 1/2) 3": at_l[2],
        "phonon (0 1/2 1/2) 1-2": at_x[0],
        "phonon (0 1/2 1/2) 3": at_x[2],
    }
    assert {name: one.value for name, one in found.items()} == pytest.approx(wanted, rel=2e-3)
    assert {one.unit for one in found.values()} == {"THz"}


def test_every_draw_has_the_frequencies_of_its_own_potential():
    cell = crystal(bulk("NaCl", "rocksalt", 5.0))
    draws = MODEL.theta0_ev * (1 + 0.05 * np.random.default_rng(0).standard_normal((3, 3)))
    many = force_constants(cell, Potential(MODEL, MODEL.theta0_ev, draws))
    for k in range(3):
        alone = LennardJones(weights_ev=draws[k, :2], inner_a=4.0, cutoff_a=5.5)
        single = force_constants(cell, Potential.frozen(alone))
        for q in ([0, 0, 0], [0, 0.5, 0.5]):
            np.testing.assert_allclose(
                many.frequencies_thz(q, draws)[k],
                single.frequencies_thz(q, alone.theta0_ev[None])[0],
                rtol=1e-8,
            )


def test_frequencies_of_a_mace_model_are_those_of_ase(tmp_path):
    from ase.phonons import Phonons
    from mace.calculators import MACECalculator

    model = load_model("mini", dtype="float64")
    potential = Potential.frozen(model)
    cell = crystal(bulk("NaCl", "rocksalt", 5.64))
    constants = force_constants(cell, potential)
    atoms = cell.to_atoms()
    calculator = MACECalculator(models=[model.module], device="cpu", default_dtype="float64")
    phonons = Phonons(atoms, calculator, supercell=(2, 2, 2), delta=0.01, name=str(tmp_path / "phonon"))
    phonons.run()
    phonons.read(acoustic=False)
    for q in ([0, 0, 0.5], [0, 0.5, 0.5]):
        ours = constants.frequencies_thz(q, model.theta0_ev[None])[0]
        ase_thz = np.real(phonons.band_structure([q], verbose=False)[0]) / 4.135667696e-3  # h in eV / THz
        np.testing.assert_allclose(ours, np.sort(ase_thz), rtol=1e-3)
    optical = constants.frequencies_thz([0, 0, 0], model.theta0_ev[None])[0]
    assert optical == pytest.approx([optical.mean()] * 3, rel=1e-6)  # cubic, without the field of long waves


def test_what_is_unstable_is_below_zero_and_said():
    results = phonon_frequencies(crystal(bulk("Ar", "sc", 2.8)), Potential.frozen(MODEL))
    below = [r for r in results if r.value < 0]
    assert below
    assert all("imaginary" in r.assumed[-1] for r in below)


def test_one_of_every_star_of_wave_vectors_is_left():
    """Γ, L, X of fcc; Γ, N, H of bcc; Γ, A, M, L of hcp."""
    assert len(wave_vectors(crystal(bulk("Ar", "fcc", 4.0)), 2)) == 3
    assert len(wave_vectors(crystal(bulk("W")), 2)) == 3
    assert len(wave_vectors(crystal(bulk("Mg")), 2)) == 4
    assert len(wave_vectors(crystal(bulk("Ar", "fcc", 4.0)), 1)) == 1


def test_masses_count():
    heavy = phonon_frequencies(crystal(bulk("Xe", "fcc", 4.0)), Potential.frozen(MODEL))
    light = phonon_frequencies(crystal(bulk("Ar", "fcc", 4.0)), Potential.frozen(MODEL))
    ratio = np.sqrt(atomic_masses[18] / atomic_masses[54])
    assert heavy[0].value / light[0].value == pytest.approx(ratio, rel=1e-6)
