"""Which head is chosen for which model, before anything is loaded."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.numpy import load_file, save_file

from mace_bounds._io import heads_folder
from mace_bounds.bounds import find_head, list_heads
from mace_bounds.bounds import library as _library
from mace_bounds.calibration import read_config
from mace_bounds.errors import HeadError, ModelError
from mace_bounds.structures import TOTAL_ENERGY


@pytest.fixture
def own_heads(tmp_path, monkeypatch):
    """Return an empty folder of user heads, and hide the shipped ones."""
    folder = tmp_path / "heads"
    folder.mkdir()
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(folder))
    monkeypatch.setattr(_library, "SHIPPED", tmp_path / "nothing")
    return folder


@pytest.mark.usefixtures("own_heads")
def test_the_default_model_without_a_head_names_both_ways_out():
    with pytest.raises(HeadError, match=r"medium-mpa-0; build one .* or use --model mini"):
        find_head(None)


def test_a_head_is_found_by_the_weights_of_a_local_model(own_heads, tiny_fit, tiny_model_folder, tmp_path):
    shutil.copytree(tiny_fit.folder, own_heads / "mine")
    assert find_head(tiny_model_folder) == own_heads / "mine"
    assert [card.name for card in list_heads()] == ["mine"]
    renamed = shutil.copytree(tiny_model_folder, tmp_path / "another-name")
    assert find_head(renamed) == own_heads / "mine"
    weights = renamed / "weights.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name != "training_compositions")
    save_file(tensors | {name: tensors[name] + 1}, weights)
    with pytest.raises(HeadError, match="another-name; build one"):
        find_head(renamed)
    with weights.open("ab") as handle:
        handle.write(b" ")
    with pytest.raises(ModelError, match="damaged"):
        find_head(renamed)


def test_a_head_of_another_quantity_is_used_only_where_it_is_named(own_heads, tiny_fit, tiny_model_folder):
    identity = replace(tiny_fit.head.identity, quantity="strain energy")
    other = replace(tiny_fit.head, identity=identity).save(own_heads / "a-strain", "# card")
    with pytest.raises(
        HeadError, match=r"no installed head .* \(the head a-strain, of another quantity, strain"
    ):
        find_head(tiny_model_folder)
    shutil.copytree(tiny_fit.folder, own_heads / "mine")
    assert [card.quantity for card in list_heads()] == ["strain energy", TOTAL_ENERGY]
    assert find_head(tiny_model_folder) == own_heads / "mine"
    assert find_head(tiny_model_folder, "a-strain") == other


def test_a_head_that_names_no_quantity_is_of_total_energies(tiny_fit):
    config = json.loads((tiny_fit.folder / "config.json").read_text())
    assert config["identity"].pop("quantity") == TOTAL_ENERGY
    assert read_config(config).identity.quantity == TOTAL_ENERGY


def test_a_head_is_found_by_its_folder_and_its_name(own_heads, tiny_fit):
    assert find_head(None, tiny_fit.folder) == tiny_fit.folder
    shutil.copytree(tiny_fit.folder, own_heads / "mine")
    assert find_head(None, "mine") == own_heads / "mine"
    with pytest.raises(HeadError, match="'other' is neither"):
        find_head(None, "other")


def test_the_users_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MACE_BOUNDS_HEADS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert heads_folder() == tmp_path / "mace-bounds" / "heads"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert heads_folder() == tmp_path / ".local" / "share" / "mace-bounds" / "heads"
