"""One sentence for what cannot be built; what was fetched and computed stays."""

from __future__ import annotations

import json

import pytest
from ase.io import write

from helpers.mp_server import Project, document_of, entry, serving
from mace_bounds._io import locked
from mace_bounds.calibration import FitConfig
from mace_bounds.errors import HeadError, ModelError, SourceError, StoreError
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import TrainingExposure
from mace_bounds.pipeline import BuildConfig, build
from mace_bounds.pipeline.sources import training_text


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


def config_of(source, model, *, shard_rows=256, dtype="float32", **settings):
    """Settings of a build in this process, with paths as the command line gives them."""
    extract = ExtractSettings(workers=1, shard_rows=shard_rows, dtype=dtype)
    settings["also"] = tuple(str(path) for path in settings.pop("also", ()))
    return BuildConfig(source=str(source), model=str(model), extract=extract, plots=False, **settings)


def test_too_few_labels_keep_what_there_is_and_more_may_join(files, tiny_model_folder, tmp_path):
    out, options = tmp_path / "out", {"model": tiny_model_folder, "include_training": True}
    few, more = files / "few.extxyz", files / "more.extxyz"
    with pytest.raises(
        HeadError, match=r"20 are needed, which takes about 24 in all.* are kept, .* --with SOURCE"
    ):
        build(out, config_of(few, **options))
    shards = {path: path.stat().st_ino for path in (out / "features").glob("shard-*")}
    assert shards
    result = build(out, config_of(few, also=[more], until="fit", **options))
    assert {path: path.stat().st_ino for path in (out / "features").glob("shard-*")} == shards
    made = json.loads((out / "build.json").read_text())["stages"]
    assert list(made) == ["download", "features", "features-2", "fit"]
    assert sum(made["fit"]["made"]["rows"].values()) == 60
    assert made["fit"]["made"]["sources"] == {"alpha": 30, "beta": 30}
    assert "The training of tiny has seen" in result.training
    for name, changed in {
        "sources": {"also": []},
        "include_training": {"also": [more], "include_training": False},
        "dtype": {"also": [more], "dtype": "float64"},
        "model": {"also": [more], "model": "mini"},
        "clip_percent": {"also": [more], "fit": FitConfig(clip_percent=1.0)},
    }.items():
        with pytest.raises(StoreError, match=rf"was built with {name}=.*, now .* new folder"):
            build(out, config_of(few, **{**options, **changed}))
    build(tmp_path / "begun", config_of(few, until="features", **options))
    with pytest.raises(StoreError, match=r"have changed since .*delete that folder"):
        build(tmp_path / "begun", config_of(more, until="features", **options))


def test_one_build_at_a_time(files, tiny_model_folder, tmp_path):
    config = config_of(files / "few.extxyz", tiny_model_folder, until="download")
    with locked(tmp_path / "out"), pytest.raises(StoreError, match="another run is writing"):
        build(tmp_path / "out", config)
    assert list(build(tmp_path / "out", config).stages) == ["download"]


def test_training_that_is_not_known_asks_for_more_labels():
    unknown = training_text("medium-mpa-0", TrainingExposure(known=False))
    assert "is not known here; it was trained on MPtrj" in unknown
    assert "--with SOURCE" in unknown
    assert "MPtrj" not in training_text("medium", TrainingExposure(known=False))
    assert "are left out" in training_text("mini", TrainingExposure(known=True))


def test_sources_and_models_that_are_none(files, tiny_model_folder, tmp_path):
    few = files / "few.extxyz"
    for source, also, why in (
        (files / "none.extxyz", (), "does not exist"),
        ("mp:Xx", (), "formula"),
        ("-", (), "reads its source again"),
        (few, (few,), "is given twice"),
    ):
        with pytest.raises(SourceError, match=why):
            build(tmp_path / "out", config_of(source, tiny_model_folder, also=also))
    with pytest.raises(ModelError, match=r"did you mean|mace-bounds models"):
        build(tmp_path / "out", config_of(few, "medium-mpa-1"))
    with pytest.raises(
        SourceError, match="until is 'thesis', which is none of download, features, fit, audit"
    ):
        config_of(few, tiny_model_folder, until="thesis")
    assert not (tmp_path / "out").exists()
    with pytest.raises(HeadError, match="labelled rows to fit"):
        build(tmp_path / "bare", config_of(files / "bare.extxyz", tiny_model_folder))


def test_a_database_without_a_label_is_said_before_the_model_runs(settings, tmp_path, tiny_model_folder):
    wrong = document_of(entry("mp-5", "Cl-K"))
    wrong["entries"]["GGA"]["energy"] -= 1.0
    with serving(Project([wrong])) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        with pytest.raises(SourceError, match="the label guard refused every label"):
            build(tmp_path / "out", config_of("mp:K-Cl", tiny_model_folder))
        with pytest.raises(SourceError, match="holds nothing for mp:chemsys=Cl-Na"):
            build(tmp_path / "none", config_of("mp:Na-Cl", tiny_model_folder))
    assert (tmp_path / "out" / "entries.jsonl.gz").exists()
    assert not (tmp_path / "out" / "features").exists()


def test_stores_of_other_models_and_unfinished_ones(tiny_store, tiny_model_folder, tmp_path):
    with pytest.raises(StoreError, match="not of mini"):
        build(tmp_path / "out", config_of(tiny_store, "mini"))
    result = build(tmp_path / "out", config_of(tiny_store, tiny_model_folder, until="features"))
    assert list(result.stages) == ["download"]
