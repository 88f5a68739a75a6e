"""The calculator: numbers of mace's own, bounds of the predictor, and everything that ase asks of one."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from helpers.mace_builds import mace_calculator
from helpers.pair_backbone import PairBackbone
from mace_bounds import BoundsCalculator, BoundsPredictor, load_model
from mace_bounds.calculator import BoundsWarning, Threshold, ThresholdExceeded, write_lammps_region
from mace_bounds.errors import HeadError, ModelError, StructureError
from mace_bounds.features import ExtractSettings


@pytest.fixture(scope="module")
def predictor():
    return BoundsPredictor("mini", settings=ExtractSettings(dtype="float64", device="cpu"))


@pytest.fixture(scope="module")
def reference(predictor):
    """mace's own calculator of the same network."""
    return mace_calculator(predictor.model.module)


@pytest.fixture
def calculator(predictor):
    return BoundsCalculator(predictor)


@pytest.fixture
def atoms():
    """Rock salt, rattled and sheared, 8 atoms."""
    made = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    made.rattle(0.08, seed=3)
    made.set_cell(made.cell @ np.array([[1.01, 0.02, 0], [0.02, 1, 0], [0, 0, 0.99]]), scale_atoms=True)
    return made


def test_numbers_are_those_of_mace_and_of_the_predictor(calculator, predictor, reference, atoms):
    atoms.calc = calculator
    other = atoms.copy()
    other.calc = reference
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-8)
    assert np.abs(atoms.get_forces() - other.get_forces()).max() <= 1e-8
    assert np.abs(atoms.get_stress() - other.get_stress()).max() <= 1e-8
    results, bounds = calculator.results, predictor.bounds(atoms.copy())
    assert results["energy_lower"] == pytest.approx(bounds.energy_lower_ev, rel=1e-6)
    assert results["energy_upper"] == pytest.approx(bounds.energy_upper_ev, rel=1e-6)
    assert results["energy_expected"] == pytest.approx(bounds.energy_expected_ev, rel=1e-7)
    assert results["energy_uncertainty"] == pytest.approx(bounds.std_mev_per_atom * 8e-3, rel=1e-5)
    assert results["novelty"] == pytest.approx(bounds.novelty, rel=1e-4)
    assert results["flags"] == tuple(bounds.flags)
    assert results["reason"] is None
    row = predictor.predict(atoms.copy()).iloc[0]
    assert results["gamma"].shape == (8,)
    assert results["gamma"].max() == pytest.approx(row["gamma_atom_local"], rel=1e-4)
    assert results["gamma"].argmax() == row["novel_atom"]


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_what_is_not_periodic_has_the_numbers_of_mace_and_no_bounds(calculator, reference, pbc):
    made = molecule("H2O") if pbc is False else fcc111("Al", (1, 2, 3), vacuum=8.0)
    made.rattle(0.05, seed=1)
    made.pbc = pbc
    made.calc = calculator
    other = made.copy()
    other.calc = reference
    assert made.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-8)
    assert np.abs(made.get_forces() - other.get_forces()).max() <= 1e-8
    assert np.abs(made.get_stress() - other.get_stress()).max() <= 1e-8
    assert np.isnan(calculator.results["energy_lower"])
    reason = "has no cell" if pbc is False else "not periodic in all three directions"
    assert reason in calculator.results["reason"]
    with pytest.raises(StructureError, match=reason):
        calculator.committee()


def test_forces_of_the_refit_are_its_derivatives(predictor, atoms):
    calculator = BoundsCalculator(predictor, mean="refit")
    atoms.calc = calculator
    assert atoms.get_potential_energy() == pytest.approx(calculator.results["energy_expected"], abs=1e-8)
    assert atoms.get_potential_energy() != pytest.approx(
        predictor.bounds(atoms.copy()).energy_model_ev, abs=1e-3
    )
    forces, stress = atoms.get_forces(), atoms.get_stress()
    for atom, axis in ((0, 0), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-4
            energies.append(predictor.bounds(moved).energy_expected_ev)
        assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-5)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.set_cell(atoms.cell @ np.diag([1 + sign * 1e-4, 1, 1]), scale_atoms=True)
        energies.append(predictor.bounds(moved).energy_expected_ev)
    assert stress[0] == pytest.approx((energies[0] - energies[1]) / 2e-4 / atoms.get_volume(), abs=1e-6)


def test_a_committee_spreads_as_the_calibrated_energy(predictor, atoms):
    calculator = BoundsCalculator(predictor, n_draws=6)
    atoms.calc = calculator
    energy, results = atoms.get_potential_energy(), calculator.results
    assert results["energy_ensemble"].mean() == pytest.approx(energy, abs=1e-9)
    assert results["energy_ensemble"].std(ddof=1) == pytest.approx(results["energy_uncertainty"], rel=1e-9)
    committee = calculator.committee(n=6)
    assert np.allclose(committee.forces_ev_a.mean(axis=0), results["forces"], atol=1e-9)
    assert results["forces_uncertainty"].shape == (8, 3)
    assert np.allclose(results["forces_uncertainty"], committee.forces_ev_a.std(axis=0, ddof=1))
    assert results["stress_uncertainty"].shape == (6,)
    # members are potentials: their forces are derivatives of their energies at one stretch
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * 1e-4
        energies.append(calculator.committee(moved, n=6, stretch=committee.stretch).energy_ensemble_ev)
    wanted = (energies[1] - energies[0]) / 2e-4
    assert np.allclose(committee.forces_ev_a[:, 2, 1], wanted, atol=1e-5)


def test_extras_of_ipi_are_in_atomic_units(calculator, atoms):
    atoms.calc = calculator
    atoms.get_potential_energy()
    committee = calculator.committee(n=3)
    extras = json.loads(committee.to_ipi())
    assert set(extras) == {"committee_pot", "committee_force", "committee_virial"}
    assert np.allclose(np.array(extras["committee_pot"]) * 27.211386, committee.energy_ensemble_ev, rtol=1e-7)
    forces = np.array(extras["committee_force"]) * 27.211386 / 0.52917721
    assert np.allclose(forces, committee.forces_ev_a, rtol=1e-7)
    virial = np.array(extras["committee_virial"]) * 27.211386
    assert np.allclose(virial, -committee.stress_ev_a3 * atoms.get_volume(), rtol=1e-7)


def test_ase_finds_what_it_expects(calculator, atoms, tmp_path):
    atoms.calc = calculator
    assert set(calculator.implemented_properties) <= set(all_properties)
    assert calculator.calculation_required(atoms, ["energy"])
    energy = atoms.get_potential_energy()
    seen = calculator._seen
    atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energy(force_consistent=True)
    assert calculator._seen is seen  # one calculation for all
    atoms.set_initial_magnetic_moments(np.ones(8))
    assert not calculator.calculation_required(atoms, ["energy", "forces"])
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("dipole", atoms)
    atoms.positions[0, 0] += 0.01
    assert calculator.check_state(atoms) == ["positions"]
    assert atoms.get_potential_energy() != energy
    assert json.loads(json.dumps(calculator.todict()))["model"] == "mini"
    assert repr(calculator).startswith("BoundsCalculator(BoundsPredictor(")
    copied, pickled = copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))
    for other in (copied, pickled):
        assert other.get_property("energy", atoms) == atoms.get_potential_energy()
        assert len(other.committee(n=2).energy_ensemble_ev) == 2
    with Trajectory(tmp_path / "a.traj", "w", atoms) as trajectory:
        trajectory.write()
    assert read(tmp_path / "a.traj").get_forces() == pytest.approx(atoms.get_forces())


def test_files_keep_the_bounds(predictor, atoms, tmp_path):
    calculator = BoundsCalculator(predictor, n_draws=3)
    atoms.calc = calculator
    atoms.info["name"] = "mine"
    assert calculator.annotate(atoms) is atoms
    for name in ("a.extxyz", "a.traj", "a.db"):
        if name == "a.db":
            with connect(tmp_path / name) as database:
                database.write(atoms, data=atoms.info)
            back = database.get_atoms(1, add_additional_information=True)
            back.info |= back.info["data"]
        else:
            write(tmp_path / name, atoms)
            back = read(tmp_path / name)
        assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        assert back.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-7)
        assert back.info["mace_bounds_energy_lower_ev"] == pytest.approx(
            calculator.results["energy_lower"], abs=1e-7
        )
        assert back.info["mace_bounds_head"] == "mini"
        assert back.info["name"] == "mine"
        stress = back.info["mace_bounds_stress_uncertainty_ev_a3"]
        assert stress == pytest.approx(calculator.results["stress_uncertainty"], abs=1e-7)
        if name != "a.extxyz":
            assert back.info["mace_bounds_gamma"] == pytest.approx(calculator.results["gamma"], abs=1e-7)
            continue  # trajectories and databases of ase keep no arrays but their own
        assert back.arrays["mace_bounds_gamma"] == pytest.approx(calculator.results["gamma"], abs=1e-7)
        forces = back.arrays["mace_bounds_forces_uncertainty_ev_a"]
        assert forces == pytest.approx(calculator.results["forces_uncertainty"], abs=1e-7)
        atoms.info["mace_bounds_gamma"] = atoms.arrays["mace_bounds_gamma"]  # for what drops arrays
    atoms.calc = BoundsCalculator(predictor)
    atoms.calc.annotate(atoms)
    assert "mace_bounds_forces_uncertainty_ev_a" not in atoms.arrays  # of another run


def test_relaxation_ends_where_that_of_mace_does(calculator, reference):
    start = bulk("NaCl", "rocksalt", 5.5) * (2, 1, 1)
    start.rattle(0.05, seed=2)
    relaxed = []
    for one in (calculator, reference):
        atoms = start.copy()
        atoms.calc = one
        with BFGS(FrechetCellFilter(atoms), logfile=None) as optimiser:
            watch = calculator.watch(optimiser) if one is calculator else None
            optimiser.run(fmax=0.02, steps=12)
        relaxed.append(atoms)
        if watch is not None:
            assert len(watch.table) == optimiser.nsteps + 1
            assert watch.table["energy_ev"].iloc[-1] == pytest.approx(atoms.get_potential_energy())
            assert watch.table["energy_lower_ev"].notna().all()
    assert np.abs(relaxed[0].positions - relaxed[1].positions).max() < 1e-6
    assert np.abs(relaxed[0].cell - relaxed[1].cell).max() < 1e-6


def moving(calculator, kelvin=2000.0):
    atoms = bulk("NaCl", "rocksalt", 5.64) * (2, 1, 1)
    atoms.rattle(0.02, seed=4)
    momenta = np.random.default_rng(0).normal(size=(4, 3)) * np.sqrt(
        atoms.get_masses()[:, None] * kelvin * units.kB
    )
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    atoms.calc = calculator
    return atoms


def test_energy_is_conserved_as_with_mace(calculator, reference):
    drifts = []
    for one in (calculator, reference):
        atoms, energies = moving(one, 600.0), []
        dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
        dynamics.attach(lambda a=atoms, e=energies: e.append(a.get_total_energy()))
        dynamics.run(10)
        drifts.append(np.ptp(energies))
    assert drifts[0] == pytest.approx(drifts[1], rel=1e-5)
    assert drifts[0] < 2e-3


def test_a_threshold_stops_warns_or_raises(predictor):
    def run(then, **limits):
        calculator = BoundsCalculator(predictor, uncertainty_threshold=Threshold(**limits, then=then))
        dynamics = VelocityVerlet(moving(calculator), timestep=2.0 * units.fs)
        watch = calculator.watch(dynamics)
        dynamics.run(6)
        return watch

    free = run("stop", std_mev_per_atom=1e4).table
    assert free["step"].tolist() == list(range(7))
    between = 1e3 * free["energy_uncertainty_ev"].min() / 4 / 2
    stopped = run("stop", std_mev_per_atom=float(between))
    assert stopped.table["step"].tolist() == [0]
    assert "above the threshold" in stopped.calculator.exceeded
    with pytest.warns(BoundsWarning, match="standard deviation of the energy is .* meV/atom, above"):
        run("warn", std_mev_per_atom=float(between))
    with pytest.raises(ThresholdExceeded, match="label this structure"):
        run("raise", std_mev_per_atom=float(between))
    with pytest.raises(ThresholdExceeded, match="novelty"):
        run("raise", novelty=1e-3)
    with pytest.raises(HeadError, match="warn, raise or stop"):
        Threshold(10.0, then="halt")
    with pytest.raises(HeadError, match="positive"):
        Threshold()


def test_stop_without_an_observer_raises(predictor, atoms):
    atoms.calc = BoundsCalculator(predictor, uncertainty_threshold=Threshold(1.0, then="stop"))
    with pytest.raises(ThresholdExceeded):
        atoms.get_forces()


def test_displacements_give_the_frequencies_of_mace(calculator, reference, tmp_path):
    from ase.phonons import Phonons

    frequencies = []
    for k, one in enumerate((calculator, reference)):
        name = str(tmp_path / f"p{k}")
        phonons = Phonons(bulk("MgO", "rocksalt", 4.25), one, supercell=(2, 1, 1), delta=0.02, name=name)
        phonons.run()
        phonons.read(acoustic=True)
        frequencies.append(phonons.band_structure([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5]], verbose=False))
    assert np.allclose(frequencies[0], frequencies[1], atol=1e-6)


def test_files_for_lammps(calculator, atoms, tmp_path):
    atoms.calc = calculator
    atoms.get_potential_energy()
    gamma = calculator.results["gamma"]
    limit = float(np.sort(gamma)[-3])
    script = write_lammps_region(tmp_path / "region.lmp", gamma, limit, group="hard")
    text = script.read_text(encoding="ascii")
    chosen = [
        int(i) for line in text.splitlines() if line.startswith("group hard id") for i in line.split()[3:]
    ]
    assert chosen == (np.flatnonzero(gamma > limit) + 1).tolist()
    first, *lines = (tmp_path / "region.lmp.gamma").read_text(encoding="ascii").splitlines()
    assert int(first) == len(lines) == 8
    assert np.allclose([float(line.split()[1]) for line in lines], gamma, rtol=1e-8)
    with pytest.raises(StructureError, match="the largest is"):
        write_lammps_region(tmp_path / "x", gamma, 1e9)
    with pytest.raises(StructureError, match="one finite grade"):
        write_lammps_region(tmp_path / "x", gamma * np.nan, 0.1)


def test_refusals_are_sentences(calculator, atoms):
    close = Atoms("NaCl", [[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True, calculator=calculator)
    with pytest.raises(StructureError, match="apart, less than"):
        close.get_potential_energy()
    with pytest.raises(StructureError, match="the model mini does not know"):
        Atoms("Og", cell=[4, 4, 4], pbc=True, calculator=calculator).get_potential_energy()
    with pytest.raises(HeadError, match="at least 2 members"):
        calculator.committee(atoms, n=1)
    published = BoundsPredictor(head="mace-mpa-0-published")
    with pytest.raises(HeadError, match="whose forces only that model has"):
        BoundsCalculator(published).get_property("energy", atoms)


def test_a_backbone_without_derivatives_says_so(predictor, atoms):
    other = copy.copy(predictor)
    other.model = PairBackbone()
    with pytest.raises(ModelError, match="the backbone pair gives no derivatives"):
        BoundsCalculator(other).get_property("energy", atoms)


def test_a_head_of_published_energies_moves_atoms_by_its_model(atoms, predictor):
    """Forces of one network, draws on the features of another; here both are mini, loaded twice."""
    published = copy.copy(predictor)
    published.__dict__["energy_model"] = load_model("mini", dtype="float64", device="cpu")
    results, own = [], []
    for one, out in ((published, results), (predictor, own)):
        calculator = BoundsCalculator(one, mean="refit", n_draws=3)
        calculator.calculate(atoms)
        out.append(calculator.results)
    for name in ("energy", "forces", "stress", "energy_lower", "forces_uncertainty", "energy_ensemble"):
        assert np.allclose(results[0][name], own[0][name], atol=1e-8), name
