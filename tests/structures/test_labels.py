"""Only uncorrected PBE(+U) total energies pass as labels; distances from the hull are read beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from mace_bounds.errors import LabelError
from mace_bounds.structures import guard_energy_key, guard_label, read, suspect_label
from mace_bounds.structures.labels import (
    find_label,
    licence_flags,
    require_pbe,
    run_type_of,
    ytterbium_flags,
)

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize("run_type", ["GGA", "GGA+U", "PBE", "PBE+U", "GGA_U", "gga"])
def test_pbe_passes(run_type):
    assert guard_label(-3.5, run_type=run_type) == (-3.5, f"uncorrected {run_type}")


def test_silence_passes_and_says_so():
    assert guard_label(-3) == (-3.0, "uncorrected, run type not stated")
    assert guard_label(-3, run_type="GGA", thermo_type="GGA_GGA+U", functional="PBE_54")[0] == -3.0


@pytest.mark.parametrize(
    "statement",
    [
        {"run_type": "R2SCAN"},
        {"run_type": "r2SCAN"},
        {"run_type": "SCAN"},
        {"run_type": "HSE06"},
        {"run_type": "PBEsol"},
        {"run_type": "GGA_GGA+U_R2SCAN"},
        {"run_type": "GGA", "thermo_type": "GGA_GGA+U_R2SCAN"},
        {"thermo_type": "R2SCAN"},
        {"functional": "LDA"},
        {"functional": "PBEsol"},
    ],
)
def test_other_functionals_are_refused_with_the_remedy(statement):
    with pytest.raises(LabelError, match=r"^the [^;]* not (GGA or GGA\+U|of PBE); take [^;]*\.$"):
        guard_label(-1.0, **statement)


@pytest.mark.parametrize(
    "name",
    ["PBE", "pbe", "PBE+U", "PBE_54", "GGA", "GGA+U", "GGA-PBE", "GGA_PE", "PBE (GGA)", "PAW_PBE", " PBE U"],
)
def test_functionals_that_are_pbe(name):
    require_pbe(name)


@pytest.mark.parametrize(
    "name",
    [
        "PBEsol",
        "PBE-sol",
        "PBE0",
        "PBE-D3",
        "RPBE",
        "revPBE",
        "SCAN",
        "r2SCAN",
        "LDA",
        "HSE06",
        "OptB88vdW",
        "U",
    ],
)
def test_functionals_that_are_none(name):
    assert find_label({"energy": -1.0, "functional": name}, None).reason == (
        f"its functional is {name!r}, not PBE or PBE+U; take the energy of a PBE calculation."
    )


def test_functionals_in_the_words_of_vasp():
    for info in ({"METAGGA": "SCAN"}, {"metagga": "R2SCAN"}, {"GGA": "PS"}, {"GGA": "PE", "METAGGA": "MBJ"}):
        assert "its functional is" in find_label({"energy": -1.0, **info}, None).reason
    for info in ({"METAGGA": "--"}, {"METAGGA": "F", "GGA": "PE"}, {"GGA": "T"}):
        assert find_label({"energy": -1.0, **info}, None).energy_ev == -1.0


@pytest.mark.parametrize("key", ["energy_hartree", "E_Ha", "energy_Ry", "energy_kcal", "energy_kJ_mol"])
def test_keys_of_another_unit(key):
    with pytest.raises(LabelError, match="another quantity"):
        guard_energy_key(key)


@pytest.mark.parametrize("energy", [None, "x", float("nan"), float("inf"), True])
def test_no_number_is_refused(energy):
    with pytest.raises(LabelError, match=r"^'[^']*' is no finite energy in eV; "):
        guard_label(energy, run_type="GGA")


@pytest.mark.parametrize(
    "key",
    ["corrected_energy", "energy_per_atom", "e_above_hull", "energy_above_hull", "formation_energy", "Corrected_Energy",
     "formation_energy_per_atom", "uncorrected_energy_per_atom", "r2scan_energy", "cohesive_energy"],
)  # fmt: skip
def test_keys_of_other_quantities_are_refused_at_once(key):
    with pytest.raises(LabelError, match="uncorrected PBE"):
        guard_energy_key(key)
    with pytest.raises(LabelError):
        read("does-not-matter.extxyz", energy_key=key)


@pytest.mark.parametrize(
    "key", ["REF_energy", "uncorrected_energy", "energy", "uncorrected_total_energy", "dft_E"]
)
def test_keys_of_total_energies_pass(key):
    guard_energy_key(key)


def test_run_type_comes_from_parameters_then_data_then_id():
    assert run_type_of({"run_type": "GGA"}, {"run_type": "HSE06"}, "mp-1-r2SCAN") == "GGA"
    assert run_type_of({}, {"run_type": "HSE06"}, "mp-1-r2SCAN") == "HSE06"
    assert run_type_of({}, {}, "mp-1-r2SCAN") == "r2SCAN"
    assert run_type_of({}, {}, "mp-1-GGA+U") == "GGA+U"
    assert run_type_of({}, {}, "mp-1") is None
    assert run_type_of({}, {}, "") is None


def test_flags():
    assert licence_flags("GNoME-12") == ("licence_by_nc",)
    assert licence_flags("mp-1", "CC BY-NC 4.0") == licence_flags("", "cc_by_nc") == ("licence_by_nc",)
    assert licence_flags("mp-1", "CC BY 4.0") == ()
    assert ytterbium_flags("mp-1", [8, 70], ["PBE Yb_3", "PBE O"]) == ("yb_3_potential",)
    assert ytterbium_flags("mp-1", [8, 70], []) == ("yb_3_potential",)
    assert ytterbium_flags("mp-1", [8, 70], ["PBE Yb_2"]) == ()
    assert ytterbium_flags("mp-1", [8, 71], []) == ytterbium_flags("mine", [70], []) == ()


def test_suspect_label():
    assert not suspect_label(2.9)
    assert suspect_label(-12.0)
    assert suspect_label(float("nan"))


def hull_distances(source):
    return [record.hull_distance_ev_per_atom for record in read(source)]


@pytest.mark.parametrize("key", ["energy_above_hull", "e_above_hull", "e_above_hull_mp2020_corrected_ppd_mp"])
def test_hull_distances_of_extxyz_and_atoms(key, tmp_path):
    atoms = [bulk("Cu"), bulk("Al"), bulk("Ni")]
    atoms[0].info = {"id": "a", key: 0.0125}
    atoms[1].info = {"id": "b", key: -0.003}  # below a hull that was made without it
    write(tmp_path / "x.extxyz", atoms)
    assert hull_distances(tmp_path / "x.extxyz") == hull_distances(atoms) == [0.0125, -0.003, None]


@pytest.mark.parametrize("key", ["energy_above_hull", "e_above_hull"])
def test_hull_distances_of_entries_as_objects_dictionaries_and_files(key, tmp_path):
    entry = ComputedStructureEntry(
        SALT, -27.0, parameters={"run_type": "GGA"}, data={key: 0.02}, entry_id="e"
    )
    assert hull_distances(entry) == hull_distances(entry.as_dict()) == [0.02]
    (tmp_path / "e.json").write_text(json.dumps([entry.as_dict(), {**entry.as_dict(), "data": {}}]))
    assert hull_distances(tmp_path / "e.json") == [0.02, None]
    (tmp_path / "e.jsonl").write_text(json.dumps(entry.as_dict()))
    assert hull_distances(tmp_path / "e.jsonl") == [0.02]


def test_hull_distances_of_structures_with_properties():
    structure = SALT.copy(properties={"e_above_hull": np.float64(0.1)})
    assert hull_distances(structure) == hull_distances(structure.as_dict()) == [0.1]


@pytest.mark.parametrize("value", ["unstable", float("nan"), float("inf"), True])
def test_a_hull_distance_that_is_no_number_is_not_taken(value):
    atoms = bulk("Cu")
    atoms.info = {"energy_above_hull": value, "e_above_hull": 0.3}
    assert hull_distances([atoms]) == [0.3]
    atoms.info = {"energy_above_hull": value}
    assert hull_distances([atoms]) == [None]


def test_a_distance_from_the_hull_is_no_label():
    atoms = bulk("Cu")
    atoms.info = {"energy_above_hull": 0.3}
    (record,) = read([atoms])
    assert record.energy_ev is record.label_reason is None


def frame(**info):
    """Return the record of a salt crystal whose comment line holds these values."""
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.info = info
    return next(iter(read(atoms)))


def test_a_mistyped_key_is_answered_with_the_keys_that_are_there():
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.info = {"E_vasp": -27.0, "formation_energy": -2.0, "note": "x"}
    record = next(iter(read(atoms, energy_key="E_vsap")))
    assert record.energy_ev is None
    assert record.label_reason == "the structure has no key 'E_vsap'; it has E_vasp: correct --energy-key."


@pytest.mark.parametrize("key", ["Energy", "DFT_energy", "TotEnergy", "energy_pbe", "TOTEN"])
def test_an_energy_under_another_name_is_named(key):
    assert f"--energy-key {key}" in frame(**{key: -27.0}).label_reason


@pytest.mark.parametrize(
    "key", ["formation_energy_per_atom", "free_energy", "fermi_energy", "band_gap", "kinetic_energy"]
)
def test_other_quantities_are_not_offered_as_labels(key):
    assert frame(**{key: -1.0}).label_reason is None


@pytest.mark.filterwarnings("ignore:Structure charge")
@pytest.mark.parametrize("key", ["charge", "total_charge"])
def test_charged_cells_are_flagged_and_have_no_label(key):
    charged, neutral = frame(energy=-27.0, **{key: 1}), frame(energy=-27.0, **{key: 0})
    assert (charged.energy_ev, neutral.energy_ev) == (None, -27.0)
    assert "charged_cell" in charged.flags
    assert "charged (+1)" in charged.label_reason
    structure = Structure(
        SALT.lattice, SALT.species, SALT.frac_coords, charge=1, properties={"energy": -27.0}
    )
    for source in (structure, structure.as_dict(), ComputedStructureEntry(structure, -27.0)):
        record = next(iter(read(source)))
        assert (record.energy_ev, "charged_cell" in record.flags) == (None, True)


def test_a_sum_of_guessed_oxidation_states_is_no_charge():
    structure = SALT.copy()
    structure.properties["energy"] = -27.0
    structure.add_oxidation_state_by_element({"Na": 2, "Cl": -1})
    assert structure.as_dict()["charge"] == 4
    for source in (structure, structure.as_dict()):
        assert next(iter(read(source))).energy_ev == -27.0


def test_isolated_atoms_are_no_labels():
    assert "isolated atom" in frame(energy=-0.3, config_type="IsolatedAtom").label_reason
    atom = bulk("Ar", "sc", a=20.0)
    atom.info["energy"] = -0.03
    record = next(iter(read(atom)))
    assert record.energy_ev is None
    assert "one atom in a box" in record.label_reason


def test_a_live_calculator_is_a_label_only_where_it_is_named():
    from ase.calculators.lj import LennardJones
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = bulk("Ar", "fcc", 5.3)
    atoms.calc = LennardJones()
    energy = atoms.get_potential_energy()
    silent, named = next(iter(read(atoms))), next(iter(read(atoms, energy_key="energy")))
    assert (silent.energy_ev, named.energy_ev) == (None, energy)
    assert "LennardJones" in silent.label_reason
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    assert next(iter(read(atoms))).energy_ev == -1.0
