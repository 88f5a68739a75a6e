"""Bounds of a few structures: the same numbers however they are asked for."""

import copy
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from helpers.pair_backbone import PairBackbone
from mace_bounds import BoundsPredictor, load_model, score
from mace_bounds.backbones import find_weights, golden_of
from mace_bounds.calibration import CalibratedHead, HeadIdentity
from mace_bounds.columns import BOUNDS, names
from mace_bounds.errors import HeadError, SourceError, StructureError
from mace_bounds.flags import FLAGS
from mace_bounds.structures import composition_key

UNLIKE = (
    "extrapolates|isolated_atoms|close_atoms|vacuum|unusual_energy"  # no crystal as those of its composition
)


@pytest.fixture(scope="module")
def table(labelled_crystals, tiny_model_folder, tiny_fit):
    return score(labelled_crystals, model=tiny_model_folder, head=tiny_fit.folder)


def test_bounds_bracket_what_they_say(table, labelled_crystals, tiny_model_folder):
    from mace.calculators import MACECalculator

    module = load_model(tiny_model_folder, dtype="float64").module
    atoms = labelled_crystals[3].copy()
    atoms.calc = MACECalculator(models=module, device="cpu", default_dtype="float64")
    row = table.iloc[3]
    assert row["energy_model_ev"] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert row["energy_lower_ev"] == pytest.approx(
        row["energy_model_ev"] + len(atoms) * row["lower_mev_per_atom"] / 1000
    )
    wanted = (labelled_crystals[3].info["REF_energy"] - row["energy_model_ev"]) / len(atoms) * 1000
    assert row["error_mev_per_atom"] == pytest.approx(wanted)
    assert row["inside"] == (row["lower_mev_per_atom"] <= wanted <= row["upper_mev_per_atom"])


@pytest.fixture(scope="module")
def predictor(tiny_model_folder, tiny_fit):
    return BoundsPredictor(tiny_model_folder, tiny_fit.folder)


def test_the_columns_are_those_of_the_schema(table, tiny_fit):
    assert table.columns.tolist() == names(BOUNDS)
    assert set(table["head"]) == {tiny_fit.folder.name}
    assert set(table["model_digest"]) == {tiny_fit.head.identity.model_digest[:12]}
    assert set(table["level"]) == {0.95}


def test_the_expected_error_is_the_centre_and_the_expected_energy_follows_from_it(table):
    moved = table["energy_model_ev"] + table["n_atoms"] * table["expected_error_mev_per_atom"] / 1000
    np.testing.assert_allclose(table["energy_expected_ev"].to_numpy(float), moved.to_numpy(float), rtol=1e-12)
    # split conformal, both sides alike: the centre is the middle of the interval
    middle = (table["lower_mev_per_atom"] + table["upper_mev_per_atom"]) / 2
    np.testing.assert_allclose(table["expected_error_mev_per_atom"], middle, atol=1e-9)


def test_parts_change_nothing(table, labelled_crystals, predictor):
    parts = list(predictor.stream(iter(labelled_crystals)))
    assert [len(part) for part in parts] == [64, 64, 64, 8]
    chosen = ["energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom", "support_lower_mev_per_atom"]
    alone = predictor.predict(labelled_crystals[:11])[chosen]
    np.testing.assert_allclose(alone, table[chosen].iloc[:11], rtol=1e-5, atol=1e-3)


def test_a_loaded_model_and_a_torch_module_are_taken_where_a_name_is(
    predictor, labelled_crystals, tiny_model_folder, tiny_fit
):
    wanted = predictor.predict(labelled_crystals[:3])["upper_mev_per_atom"]
    model = load_model(tiny_model_folder, dtype="float64")  # float32 would round its isolated atoms' energies
    for given in (model, model.module):
        other = BoundsPredictor(given, tiny_fit.head)
        got = other.predict(labelled_crystals[:3])["upper_mev_per_atom"]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-3)


def test_bounds_of_one_structure_are_its_row(predictor, labelled_crystals, table):
    bounds = predictor.bounds(labelled_crystals[3])
    row = table.iloc[3]
    assert bounds.formula == row["formula"]
    assert bounds.energy_lower_ev == pytest.approx(row["energy_lower_ev"], abs=1e-4)
    assert bounds.level == 0.95
    assert bounds.lower_mev_per_atom < bounds.expected_error_mev_per_atom < bounds.upper_mev_per_atom
    plain = json.loads(json.dumps(bounds.to_dict()))
    assert plain["std_mev_per_atom"] == bounds.std_mev_per_atom
    assert all(FLAGS[name].meaning == meaning for name, meaning in bounds.flags.items())
    narrow = predictor.bounds(labelled_crystals[3], level=0.68)
    assert narrow.upper_mev_per_atom - narrow.lower_mev_per_atom == pytest.approx(2 * bounds.std_mev_per_atom)


def test_what_is_not_one_sound_structure_is_refused_with_the_reason(predictor):
    broken = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True)
    with pytest.raises(StructureError, match=r"0\.1"):
        predictor.bounds(broken)
    with pytest.raises(StructureError, match=r"these are 2; use predict"):
        predictor.bounds([bulk("Al"), bulk("Cu")])


def test_representations_are_one_line(predictor, labelled_crystals):
    for thing in (predictor, predictor.model, predictor.head, str(predictor.bounds(labelled_crystals[0]))):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 400
    assert repr(predictor).startswith("BoundsPredictor(")


def test_training_compositions_are_told_apart(table, labelled_crystals):
    seen = np.array([bool(atoms.info["in_training"]) for atoms in labelled_crystals])
    assert (table["seen_in"] == "model_training").to_numpy().tolist() == seen.tolist()
    unlike = table["flags"].str.contains(UNLIKE).to_numpy()
    assert (seen & ~unlike).any()
    assert table["flags"].str.contains("in_training").to_numpy().tolist() == (seen & ~unlike).tolist()


def test_the_flag_of_the_models_training_does_not_depend_on_the_head(
    labelled_crystals, tiny_model_folder, whole_fit
):
    table = score(labelled_crystals, model=tiny_model_folder, head=whole_fit.folder)
    seen = np.array([bool(atoms.info["in_training"]) for atoms in labelled_crystals])
    unlike = table["flags"].str.contains(UNLIKE).to_numpy()
    assert table["flags"].str.contains("in_training").tolist() == (seen & ~unlike).tolist()
    keys = [composition_key(atoms.info["formula"]) for atoms in labelled_crystals]
    fit, calibration = whole_fit.head.fit_compositions, whole_fit.head.calibration_compositions
    free = np.where(seen, "model_training", "unseen")
    wanted = np.where(np.isin(keys, fit), "fit", np.where(np.isin(keys, calibration), "calibration", free))
    assert table["seen_in"].tolist() == wanted.tolist()
    assert {"fit", "calibration", "model_training"} <= set(
        wanted[seen]
    )  # rows of both kinds of use are there


def test_a_structure_that_cannot_be_scored_is_a_row_with_a_reason(tiny_model_folder, tiny_fit):
    sound, broken = (
        bulk("Al", "fcc", 4.05),
        Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True),
    )
    table = score([broken, sound], model=tiny_model_folder, head=tiny_fit.head)
    assert table["reason"].notna().tolist() == [True, False]
    assert np.isnan(table["lower_mev_per_atom"].iloc[0])
    assert np.isfinite(table["lower_mev_per_atom"].iloc[1])


def test_levels_and_sources_are_checked(tiny_model_folder, tiny_fit):
    with pytest.raises(HeadError, match=r"for the levels .*, not for 0\.5"):
        score(bulk("Al"), model=tiny_model_folder, head=tiny_fit.folder, level=0.5)
    with pytest.raises(SourceError):
        score("does-not-exist.cif", model=tiny_model_folder, head=tiny_fit.folder)


def test_when_nothing_can_be_scored_every_row_says_why(tiny_model_folder, tiny_fit):
    broken = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True)
    table = score(broken, model=tiny_model_folder, head=tiny_fit.head)
    assert isinstance(table["reason"].iloc[0], str)
    assert table["upper_mev_per_atom"].isna().all()


def test_a_head_cannot_make_a_file_be_loaded(tiny_fit, tmp_path, monkeypatch):
    """A checkpoint is a pickle: only one that the user names is loaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.model").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    head = replace(tiny_fit.head, identity=replace(tiny_fit.head.identity, model="weights.model"))
    with pytest.raises(
        HeadError, match=r"made for the checkpoint 'weights.model' .digest .*; name it with --model"
    ):
        BoundsPredictor(head=head)
    assert not (tmp_path / "harmed").exists()


def test_a_file_that_is_not_the_one_of_the_head_is_not_unpickled(tiny_fit, tmp_path, monkeypatch):
    """The cache of downloads holds other bytes under the name of a known model than the head was made with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cached = find_weights("small").path
    assert cached.is_relative_to(tmp_path)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    named = replace(tiny_fit.head.identity, model="small", model_file_sha256="0" * 64)
    for model in (None, "small", "MACE-MP-0-small"):
        with pytest.raises(
            HeadError, match=r"the file of .*small, is not the one that the head .* it was not loaded"
        ):
            BoundsPredictor(model, replace(tiny_fit.head, identity=named))
    assert not (tmp_path / "harmed").exists()


def test_a_known_name_is_never_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "small").write_bytes(b"anything")
    assert not find_weights("small").here
    assert find_weights("./small").path == Path("small")


@pytest.fixture(scope="module")
def copies(tiny_model_folder, tmp_path_factory):
    """The model as a checkpoint, as one in single precision, and as a folder in another place under another name."""
    folder = tmp_path_factory.mktemp("copies")
    module = load_model(tiny_model_folder, dtype="float64", device="cpu").module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when it packs e3nn's compiled parts
        torch.save(module, folder / "saved.model")
        torch.save(copy.deepcopy(module).float(), folder / "single.model")
    shutil.copytree(tiny_model_folder, folder / "moved")
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / "saved.model", folder / "elsewhere" / "renamed.pt")
    return folder


@pytest.mark.parametrize("name", ["saved.model", "single.model", "moved", "elsewhere/renamed.pt"])
def test_a_head_takes_every_copy_of_its_model(name, copies, tiny_fit, table, labelled_crystals, monkeypatch):
    monkeypatch.chdir(copies)
    got = BoundsPredictor(copies / name, tiny_fit.folder).predict(labelled_crystals[:5])
    wanted = table.iloc[:5]
    for column in ("energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom"):
        np.testing.assert_allclose(got[column].to_numpy(float), wanted[column].to_numpy(float), rtol=1e-4)


def changed(model, how):
    module = load_model(model.module, dtype=model.dtype, device="cpu").module  # a copy
    how(module)
    return load_model(module, dtype=model.dtype, device="cpu")


def test_a_head_refuses_a_changed_model(predictor, tiny_fit):
    weights = list(predictor.model.module.named_parameters())
    for place in (0, len(weights) // 2, -1):

        def one_weight(module, name=weights[place][0]):
            dict(module.named_parameters())[name].data.view(-1)[0] += 1e-3

        with pytest.raises(HeadError, match=r"belongs to tiny .* fitted for this model"):
            BoundsPredictor(changed(predictor.model, one_weight), tiny_fit.folder)


def test_a_head_refuses_a_model_of_the_same_tensors_that_is_built_in_another_way(predictor, tiny_fit):
    def other_cutoff_function(module):
        module.radial_embedding.cutoff_fn.p += 1

    other = changed(predictor.model, other_cutoff_function)
    assert other.digest == tiny_fit.head.identity.model_digest
    with pytest.raises(HeadError, match=r"built in another way: of 4 built-in cells .* eV/atom") as caught:
        BoundsPredictor(other, tiny_fit.folder)
    assert "\n" not in str(caught.value)
    old = replace(tiny_fit.head, identity=replace(tiny_fit.head.identity, golden=None))
    assert BoundsPredictor(other, old).model is other  # a head of an earlier version has nothing to compare


def test_a_head_takes_a_converted_model():
    """Other names and shapes of tensors, the same network."""

    class Original(PairBackbone):
        layout = "weights, shift"

    class Converted(PairBackbone):
        layout, digest = "one matrix", "c" * 64

    model = Original()
    identity = HeadIdentity(
        "pair", model.digest, "default", "readout", tuple(model.columns()), False, golden=golden_of(model)
    )
    head = SimpleNamespace(identity=identity, published=False)

    def check(model):
        told = (model.name, model.digest, model.head, "readout")
        CalibratedHead.check_fits(head, *told, golden=golden_of(model))

    check(Converted())
    for other in (Converted(shift_ev=-0.499), Original(shift_ev=-0.499)):
        with pytest.raises(HeadError, match=r"another network: .* energies differ by up to 0.001 eV/atom"):
            check(other)
    same_layout = type("SameLayout", (Original,), {"digest": "c" * 64})
    with pytest.raises(HeadError, match="fitted for this model"):
        check(same_layout())  # its tensors can be compared, and are others
