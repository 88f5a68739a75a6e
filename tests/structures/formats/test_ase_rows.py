"""Trajectories and databases that ase writes."""

from __future__ import annotations

import gzip
import pickle
import random

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io.trajectory import Trajectory

from mace_bounds.structures import read
from mace_bounds.structures.formats.ase_rows import calculator_reason


class Exploding:
    """A pickle that must never be opened."""

    def __reduce__(self):
        return (pytest.fail, ("it was opened",))


def frames():
    for a in (5.6, 5.7, 5.8):
        atoms = bulk("NaCl", "rocksalt", a=a) * (1, 1, 2)
        atoms.rattle(0.05, seed=int(a * 10))
        atoms.calc = SinglePointCalculator(atoms, energy=-a)
        atoms.info["run_type"] = "GGA"
        yield atoms


@pytest.fixture
def files(tmp_path):
    with Trajectory(str(tmp_path / "x.traj"), "w") as trajectory:
        for atoms in frames():
            trajectory.write(atoms)
    with connect(str(tmp_path / "x.db")) as database:
        for k, atoms in enumerate(frames()):
            database.write(atoms, material_id=f"m{k}", run_type="GGA")
    for name in ("x.traj", "x.db"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    return tmp_path


@pytest.mark.parametrize("name", ["x.traj", "x.db", "x.traj.gz", "x.db.gz"])
def test_what_ase_writes_is_read(files, name):
    records = list(read(files / name))
    ids = ["m0", "m1", "m2"] if ".db" in name else [f"{name}#{k}" for k in range(3)]
    assert [record.id for record in records] == ids
    for record, atoms in zip(records, frames(), strict=True):
        assert (record.reason, record.label_reason) == (None, None)
        assert record.energy_ev == atoms.get_potential_energy()
        np.testing.assert_array_equal(record.crystal.numbers, atoms.numbers)
        np.testing.assert_array_equal(record.crystal.positions, atoms.positions)
        np.testing.assert_array_equal(record.crystal.cell, atoms.cell.array)
    (files / "unnamed").write_bytes((files / name).read_bytes())
    assert len(list(read(files / "unnamed"))) == 3
    assert "more than 3" in next(read(files / name, max_atoms=3)).reason


def test_energies_of_other_calculators_are_no_labels(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    with Trajectory(str(tmp_path / "x.traj"), "w") as trajectory:
        trajectory.write(atoms)
    connect(str(tmp_path / "x.db")).write(atoms)
    for name in ("x.traj", "x.db"):
        (record,) = read(tmp_path / name)
        assert record.energy_ev is None
        assert "'emt', which is no DFT" in record.label_reason


@pytest.mark.parametrize(
    ("name", "parameters", "word"),
    [
        ("vasp", {"xc": "PBE"}, None),
        ("vasp", {"xc": "pbesol"}, "pbesol"),
        ("vasp", {"metagga": "R2SCAN"}, "R2SCAN"),
        ("vasp", {"xc": "pbe", "ivdw": 12}, "dispersion"),
        ("vasp", {"xc": "pbe", "lhfcalc": True}, "hybrid"),
        ("gpaw", {"xc": "LDA"}, "LDA"),
        ("unknown", {}, None),
        (None, {}, None),
        ("MACECalculator", {}, "no DFT"),
        ("chgnet", {}, "no DFT"),
    ],
)
def test_functionals_of_calculators(name, parameters, word):
    reason = calculator_reason(name, parameters)
    assert reason is None if word is None else word in reason


def test_nothing_is_unpickled(files):
    (files / "old.traj").write_bytes(pickle.dumps(Exploding()))
    (record,) = read(files / "old.traj")
    assert "pickle" in record.reason
    (files / "other.db").write_bytes(pickle.dumps(Exploding(), protocol=0))
    (record,) = read(files / "other.db")
    assert record.reason is not None


@pytest.mark.parametrize("name", ["x.traj", "x.db"])
def test_damaged_files_have_a_reason(files, name):
    data = (files / name).read_bytes()
    random_ = random.Random(5)
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(random_.randint(1, 20)):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        if random_.random() < 0.3:
            changed = changed[: random_.randrange(len(changed))]
        (files / name).write_bytes(changed)
        for record in read(files / name):
            assert record.crystal is not None or record.reason
