"""One sentence for what cannot be built; what was fetched and computed stays."""

from __future__ import annotations

import json

import pytest
from ase.io import write

from helpers.mp_server import Project, document_of, entry, serving
from mace_bounds.errors import HeadError, ModelError, SourceError, StoreError
from mace_bounds.pipeline import build
from mace_bounds.pipeline.training import training_sentence


@pytest.fixture(scope="module")
def files(labelled_crystals, tmp_path_factory):
    """Files of twelve, thirty and no labelled crystals."""
    folder = tmp_path_factory.mktemp("files")
    write(folder / "few.extxyz", labelled_crystals[:12], format="extxyz")
    write(folder / "more.extxyz", labelled_crystals[12:60], format="extxyz")
    bare = [atoms.copy() for atoms in labelled_crystals[:3]]
    for atoms in bare:
        del atoms.info["REF_energy"]
    write(folder / "bare.extxyz", bare, format="extxyz")
    return folder


def test_too_few_labels_keep_what_there_is_and_more_may_join(files, tiny_model_folder, tmp_path):
    out, options = tmp_path / "out", {"model": tiny_model_folder, "include_training": True, "plots": False}
    few, more = files / "few.extxyz", files / "more.extxyz"
    with pytest.raises(HeadError, match=r"expected at least 20 labelled .* are kept, .* --with SOURCE"):
        build(out, few, **options)
    shards = {path: path.stat().st_ino for path in (out / "features").glob("shard-*")}
    assert shards
    result = build(out, few, also=[more], until="fit", **options)
    assert {path: path.stat().st_ino for path in (out / "features").glob("shard-*")} == shards
    made = json.loads((out / "build.json").read_text())["stages"]
    assert list(made) == ["download", "features", "features-2", "fit"]
    assert sum(made["fit"]["made"]["rows"].values()) == 60
    assert made["fit"]["made"]["sources"] == {"alpha": 30, "beta": 30}
    assert "take part (--include-training)" in result.training
    for changed in (
        {"also": []},
        {"also": [more], "include_training": False},
        {"also": [more], "dtype": "float64"},
        {"also": [more], "model": "mini"},
    ):
        with pytest.raises(StoreError, match=r"was built for, but .* was .* and is now .* new folder"):
            build(out, few, **{**options, **changed})
    build(tmp_path / "begun", few, until="features", **options)
    with pytest.raises(StoreError, match="choose a new folder for the store"):
        build(tmp_path / "begun", more, until="features", **options)


def test_training_that_is_known_is_left_out_or_said():
    about = {"training_compositions_known": True, "includes_training": False, "test_rows_in_training": 0}
    assert "are left out" in training_sentence("mini", about)
    about |= {"includes_training": True, "test_rows_in_training": 3}
    assert "3 rows of the measured ones" in training_sentence("mini", about)
    unknown = training_sentence("medium", {"training_compositions_known": False})
    assert "is not known here: on those" in unknown
    assert "MPtrj" not in unknown


def test_sources_and_models_that_are_none(files, tiny_model_folder, tmp_path):
    few = files / "few.extxyz"
    for source, also, why in (
        (files / "none.extxyz", (), "does not exist"),
        ("mp:Xx", (), "expected a chemical formula"),
        ("-", (), "read again"),
        (few, (few,), "every source once"),
    ):
        with pytest.raises(SourceError, match=why):
            build(tmp_path / "out", source, also=also, model=tiny_model_folder)
    with pytest.raises(ModelError, match="mace-bounds models"):
        build(tmp_path / "out", few, model="medium-mpa-1")
    with pytest.raises(SourceError, match="expected a stage among"):
        build(tmp_path / "out", few, model=tiny_model_folder, until="thesis")
    assert not (tmp_path / "out").exists()
    with pytest.raises(HeadError, match="expected at least 20 labelled rows"):
        build(tmp_path / "bare", files / "bare.extxyz", model=tiny_model_folder)


def test_a_database_without_a_label_is_said_before_the_model_runs(settings, tmp_path, tiny_model_folder):
    wrong = document_of(entry("mp-5", "Cl-K"))
    wrong["entries"]["GGA"]["energy"] -= 1.0
    with serving(Project([wrong])) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        with pytest.raises(SourceError, match="the label guard refused all of them"):
            build(tmp_path / "out", "mp:K-Cl", model=tiny_model_folder)
        with pytest.raises(SourceError, match="got none in version"):
            build(tmp_path / "none", "mp:Na-Cl", model=tiny_model_folder)
    assert (tmp_path / "out" / "entries.jsonl.gz").exists()
    assert not (tmp_path / "out" / "features").exists()


def test_stores_of_other_models_and_unfinished_ones(tiny_store, tiny_model_folder, tmp_path):
    with pytest.raises(StoreError, match="expected features of mini in"):
        build(tmp_path / "out", tiny_store, model="mini")
    result = build(tmp_path / "out", tiny_store, model=tiny_model_folder, until="features")
    assert list(result.stages) == ["download"]
