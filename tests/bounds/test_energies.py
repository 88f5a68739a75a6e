"""Heads of another model's energies: the user brings these, a model that runs here gives the features."""

import copy
import warnings

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from mace_bounds import BoundsPredictor, audit, load_model, score
from mace_bounds.bounds import load_head
from mace_bounds.errors import HeadError, LabelError
from mace_bounds.structures import read


@pytest.fixture(scope="module")
def energies(published_energies):
    return published_energies


@pytest.fixture(scope="module")
def head(published_head):
    return published_head


@pytest.fixture(scope="module")
def predictor(head, tiny_model_folder):
    return BoundsPredictor(tiny_model_folder, head)


class Table(Calculator):
    """A calculator that knows the energy of one structure by its positions."""

    implemented_properties = ("energy",)

    def __init__(self, known):
        super().__init__()
        self.known = known

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.known[key(atoms)]


def key(atoms):
    return atoms.get_chemical_formula(), round(float(atoms.get_volume()), 4)


def test_given_energies_are_bounded_in_whatever_form_they_come(predictor, labelled_crystals, energies):
    some = labelled_crystals[:70]  # more than a batch
    ids = [record.id for record in read(some)]
    wanted = np.array([energies[name] for name in ids])
    known = {key(atoms): energy for atoms, energy in zip(some, wanted, strict=True)}
    forms = (wanted, list(wanted), energies, lambda atoms: known[key(atoms)], Table(known))
    tables = [predictor.predict(some, energies=form) for form in forms]
    for table in tables:
        assert table["reason"].isna().all()
        np.testing.assert_array_equal(table["energy_model_ev"], wanted)
        np.testing.assert_array_equal(table["lower_mev_per_atom"], tables[0]["lower_mev_per_atom"])
    table = tables[0]
    np.testing.assert_allclose(
        table["energy_upper_ev"], wanted + table["n_atoms"] * table["upper_mev_per_atom"] / 1e3
    )
    error = (np.array([atoms.info["REF_energy"] for atoms in some]) - wanted) / table["n_atoms"] * 1e3
    np.testing.assert_allclose(table["error_mev_per_atom"], error, atol=1e-6)
    assert set(table["model"]) == {"Another"}
    assert set(table["features_of"]) == {predictor.model.name}
    assert not table["flags"].str.contains("in_training").any()  # of the model of the features
    streamed = list(predictor.stream(iter(some), energies=wanted))
    assert [len(part) for part in streamed] == [64, 6]
    assert predictor.bounds(some[0], energies=wanted[:1]).energy_model_ev == wanted[0]
    assert "Another gives the energy" in predictor.note


def test_what_cannot_be_the_models_energy_is_a_reason_and_the_run_goes_on(
    predictor, labelled_crystals, energies
):
    some = labelled_crystals[:20]
    good = np.array([energies[record.id] for record in read(some)])

    def breaks(atoms):
        if key(atoms) == key(some[3]):
            raise RuntimeError("no convergence")
        return dict(zip(map(key, some), good, strict=True))[key(atoms)]

    table = predictor.predict(some, energies=breaks)
    assert table["reason"].notna().tolist() == [k == 3 for k in range(20)]
    assert "RuntimeError: no convergence" in table["reason"][3]
    holes = good.copy()
    holes[[2, 5]] = np.nan, good[5] + 10 * len(some[5])
    table = predictor.predict(some, energies=holes)
    assert np.flatnonzero(table["reason"].notna()).tolist() == [2, 5]
    assert "10.0 eV/atom away" in table["reason"][5]
    assert table["upper_mev_per_atom"].isna().tolist() == table["reason"].notna().tolist()
    per_atom = good / [len(atoms) for atoms in some]
    assert predictor.predict(some, energies=per_atom)["reason"].str.contains("per atom").all()
    own = predictor.table(next(predictor.rows(some, {})))  # nothing given: every row says so
    assert own["reason"].str.contains("no energy was given").all()


def test_a_count_that_does_not_fit_is_refused(predictor, labelled_crystals, energies):
    good = [energies[record.id] for record in read(labelled_crystals[:3])]
    with pytest.raises(LabelError, match="ends before the structure"):
        predictor.predict(labelled_crystals[:3], energies=good[:2])
    with pytest.raises(LabelError, match="1 more values"):
        predictor.predict(labelled_crystals[:2], energies=good)
    with pytest.raises(LabelError, match="shape"):
        predictor.predict(labelled_crystals[:2], energies=np.zeros((2, 2)))


def test_heads_and_energies_must_belong_together(
    predictor, head, labelled_crystals, tiny_fit, tiny_model_folder
):
    with pytest.raises(HeadError, match="gives only features: give the energies"):
        predictor.predict(labelled_crystals[:1])
    with pytest.raises(HeadError, match="no given ones"):
        score(labelled_crystals[:1], model=tiny_model_folder, head=tiny_fit.folder, energies=[1.0])
    with pytest.raises(HeadError, match="bounds energies of Another"):
        predictor.head.check_fits(
            predictor.model.name, predictor.model.digest, predictor.model.head, "readout"
        )
    assert (
        f"score FILE.cif --head PATH/TO/{head.name} --predictions TABLE" in (head / "README.md").read_text()
    )


def test_a_model_without_a_head_of_its_own_uses_the_head_of_its_published_energies(tmp_path, monkeypatch):
    """A stand-in of MACE-MPA-0 in mace's cache: ``mini`` with another readout, loaded as the real file would be."""
    import torch
    from ase.build import bulk

    from mace_bounds.backbones import find_weights

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(tmp_path / "none"))
    mini = load_model("mini")
    with warnings.catch_warnings(action="ignore"):  # of TorchScript
        module = copy.deepcopy(load_model("mini", dtype="float64").module)
    with torch.no_grad():
        for parameter in module.readouts.parameters():
            parameter.mul_(1.002)
    weights = find_weights("medium-mpa-0")
    assert not weights.here
    weights.path.parent.mkdir(parents=True)
    with warnings.catch_warnings(action="ignore"):
        torch.save(module.float(), weights.path)
    crystals = [bulk("NaCl", "rocksalt", 5.64), bulk("Cu"), bulk("MgO", "rocksalt", 4.21)]
    predictor = BoundsPredictor("MACE-MPA-0")
    table = predictor.predict(crystals)
    assert predictor.head.name == "mace-mpa-0-published"
    assert predictor.model.digest == mini.digest != predictor.energy_model.digest
    records = list(read(crystals))
    wanted = load_model(weights.path).extract([record.crystal for record in records]).energy_ev
    np.testing.assert_allclose(table["energy_model_ev"], wanted, atol=1e-4)
    assert set(table["model"]) == {"MACE-MPA-0"}
    assert set(table["features_of"]) == {"mini"}
    assert "782 WBM crystals" in predictor.note
    assert "relaxation" in predictor.note
    given = BoundsPredictor("medium-mpa-0").predict(crystals, energies=wanted)
    np.testing.assert_allclose(given["upper_mev_per_atom"], table["upper_mev_per_atom"])
    with pytest.raises(HeadError, match="--model mini --predictions TABLE --energy-column NAME"):
        audit(crystals, tmp_path / "a", model="medium-mpa-0")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["mace-mpa-0-published", "mace-mp-0-published"])
def test_a_shipped_head_covers_over_twenty_splits_what_it_says(name):
    head = load_head(name)
    assert head.scale.kind == "constant"  # widths that vary were not better by more than the spread
    rows = {row["level"]: row for row in head.provenance["coverage_over_splits"]}
    assert all(rows[level]["n_splits"] == 20 for level in (0.68, 0.9, 0.95))
    assert all(abs(rows[level]["mean"] - level) <= 0.03 for level in (0.68, 0.9, 0.95))
