"""Strain labels: the equation of state against ASE and closed forms, the anchor, and the way through the reader."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.collections import dcdft
from ase.eos import birchmurnaghan
from ase.units import GPa
from hypothesis import given
from hypothesis import strategies as st

from mace_bounds import examples
from mace_bounds.backbones import FeatureBlock
from mace_bounds.examples import (
    LABEL,
    SCALES,
    EquationOfState,
    crystal_at,
    equation_of_state,
    strain_records,
    write_extxyz,
)
from mace_bounds.structures import read

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_dcdft.py"


@dataclass
class FakeModel:
    """Energy = -3 eV per atom + 0.01 eV/Å³ times the volume: a number that can be worked out by hand."""

    name: str = "fake"
    digest: str = "0123456789abcdef"
    atomic_numbers: tuple[int, ...] = (6, 14, 26)

    def extract(self, crystals):
        energy = np.array([-3.0 * len(c.numbers) + 0.01 * c.volume for c in crystals])
        return FeatureBlock(np.zeros((len(energy), 0)), energy, energy)


@pytest.mark.parametrize("symbol", dcdft.names)
def test_equation_of_state_agrees_with_ase(symbol):
    eos = equation_of_state(symbol)
    scales = np.linspace(0.9, 1.1, 21)
    v0, b0 = eos.volume_a3_per_atom, eos.bulk_modulus_gpa * GPa
    wanted = birchmurnaghan(scales * v0, 0.0, b0, eos.bulk_modulus_derivative, v0)
    np.testing.assert_allclose(eos.energy_ev_per_atom(scales), wanted, rtol=1e-11, atol=1e-15)


def test_silicon_by_hand():
    # V0 = 20.453 Å³, B0 = 88.545 GPa = 0.552653 eV/Å³, B1 = 4.31 (WIEN2k); V = 0.94 V0:
    # x = 0.94^(-2/3) - 1 = 0.042113; 9/8 · 0.552653 · 20.453 · x² · (1 + 0.155 x) = 0.022700 eV
    assert float(equation_of_state("Si").energy_ev_per_atom(0.94)) == pytest.approx(0.022700, abs=1e-6)


@given(
    v0=st.floats(5.0, 120.0),
    b0=st.floats(0.5, 450.0),
    b1=st.floats(2.0, 8.0),
)
def test_curvature_at_the_minimum_is_the_bulk_modulus(v0, b0, b1):
    eos = EquationOfState(v0, b0, b1)
    h = 1e-3
    below, at, above = eos.energy_ev_per_atom(np.array([1 - h, 1.0, 1 + h]))
    assert at == 0.0
    assert (above + below) / (h**2 * v0) == pytest.approx(b0 * GPa, rel=1e-4)  # B = V d²E/dV²
    pressure_derivative = -1.0 - (above - below) / (h**3 * v0 * b0 * GPa) * 3.0  # V³E''' = -(1 + B') B V
    assert pressure_derivative == pytest.approx(b1, abs=1e-2)


def test_every_element_has_its_volume_and_positive_strain_energy():
    for symbol in dcdft.names:
        crystal = crystal_at(symbol)
        n = len(crystal.numbers)
        assert crystal.volume / n == pytest.approx(dcdft.data[symbol]["wien2k_volume"], rel=1e-12)
        assert crystal_at(symbol, 0.95).volume == pytest.approx(0.95 * crystal.volume, rel=1e-12)
        assert (equation_of_state(symbol).energy_ev_per_atom(np.array(SCALES)) > 0).all()


def test_scaling_keeps_shape_and_fractional_positions():
    atoms, crystal = dcdft["Se"], crystal_at("Se", 0.97)
    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    np.testing.assert_allclose(fractional, atoms.cell.scaled_positions(atoms.positions), atol=1e-12)
    np.testing.assert_allclose(crystal.to_atoms().cell.angles(), atoms.cell.angles(), atol=1e-10)


def test_labels_are_anchored_at_the_models_energy_at_equilibrium():
    records = strain_records(FakeModel(), ["Si"], [0.94, 1.06])
    n, v0 = 8, 20.453
    zero = n * (-3.0 + 0.01 * v0)
    strain = birchmurnaghan(np.array([0.94, 1.06]) * v0, 0.0, 88.545 * GPa, 4.31, v0)
    assert [r.id for r in records] == ["Si-0.94", "Si-1.06"]
    assert [r.label_kind for r in records] == [LABEL, LABEL]
    np.testing.assert_allclose([r.energy_ev for r in records], zero + n * strain, rtol=1e-12)


def test_label_at_equilibrium_is_the_models_own_energy_and_is_left_out():
    (record,) = strain_records(FakeModel(), ["Fe"], [1.0])
    assert record.energy_ev == pytest.approx(float(FakeModel().extract([crystal_at("Fe")]).energy_ev[0]))
    assert min(abs(scale - 1.0) for scale in SCALES) > 0.03


def test_elements_that_the_model_does_not_know_are_left_out():
    assert sorted({r.crystal.formula for r in strain_records(FakeModel())}) == ["C", "Fe", "Si"]


def test_file_comes_back_through_the_reader(tmp_path):
    records = strain_records(FakeModel(), ["C", "Si"])
    assert write_extxyz(records, tmp_path / "strain.extxyz", FakeModel()) == 2 * len(SCALES)
    back = list(read(tmp_path / "strain.extxyz"))
    assert [r.reason for r in back] == [None] * len(records)
    assert [r.label_reason for r in back] == [None] * len(records)
    assert [(r.id, r.source, r.label_kind) for r in back] == [(r.id, "dcdft", "REF_energy") for r in records]
    np.testing.assert_allclose([r.energy_ev for r in back], [r.energy_ev for r in records], rtol=1e-14)
    np.testing.assert_allclose(back[0].crystal.positions, records[0].crystal.positions, atol=1e-8)


def test_script_says_what_the_labels_are(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_dcdft", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("mace_bounds.backbones.load_model", lambda name: FakeModel(name=name))
    script.main([str(tmp_path / "new" / "strain.extxyz"), "--model", "fake"])
    said = capsys.readouterr().out
    assert "18 crystals" in said
    assert "not of total or formation energies" in said
    comment = (tmp_path / "new" / "strain.extxyz").read_text().splitlines()[1]
    assert f'label="{LABEL}"' in comment
    assert 'label_zero="fake 0123456789ab"' in comment


def test_public_names():
    assert all(hasattr(examples, name) for name in examples.__all__)
