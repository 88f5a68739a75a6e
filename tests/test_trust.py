"""Nothing that is read runs code: exploding pickles in every place."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mace_bounds.cli.app import app


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "exploded"


@pytest.fixture
def bomb(marker):
    data = pickle.dumps(Bomb(marker))
    pickle.loads(data)
    assert marker.exists()  # it does explode
    marker.unlink()
    return data


@pytest.fixture
def run(marker):
    """Run a command, which must not explode nor be at fault."""

    def call(*arguments, code=None):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert not marker.exists(), done.output
        assert done.exit_code in ((0, 1, 2) if code is None else (code,)), done.output
        return done.output

    return call


def signed(folder, **identity):
    """Rewrite the identity of a head and sign it, as whoever made it could."""
    from mace_bounds.head import read_head_folder, write_head

    tensors, config = read_head_folder(folder)
    config["identity"] |= identity
    plain = {key: value for key, value in config.items() if key not in ("format", "digest")}
    return write_head(folder, tensors, plain, "# card\n", overwrite=True)


@pytest.mark.parametrize("named", ["{head}/weights.model", "weights.model", "{head}"])
@pytest.mark.parametrize("command", ["score", "audit"])
def test_a_head_cannot_name_a_checkpoint(
    named, command, bomb, run, tiny_fit, crystal_cif, tmp_path, monkeypatch
):
    head = shutil.copytree(tiny_fit.folder, tmp_path / "evil")
    for place in (head, tmp_path):
        (place / "weights.model").write_bytes(bomb)
    for name in ("weights.safetensors", "weights.pt"):
        (head / name).write_bytes(bomb)
    signed(head, model=named.format(head=head))
    monkeypatch.chdir(tmp_path)
    more = [tmp_path / "report"] if command == "audit" else []
    output = " ".join(run(command, crystal_cif, *more, "--head", head, code=2).split())
    assert "made for the checkpoint" in output
    assert "name it with --model" in output


@pytest.mark.parametrize("name", ["head.safetensors", "config.json", "README.md"])
def test_files_of_a_head(name, bomb, run, tiny_fit, tiny_model_folder, crystal_cif, tmp_path, monkeypatch):
    heads = tmp_path / "heads"
    head = shutil.copytree(tiny_fit.folder, heads / "evil")
    (head / name).write_bytes(bomb)
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(heads))
    run("score", crystal_cif, "--model", tiny_model_folder, "--head", head)
    assert "evil" in run("heads", code=0)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_files_of_a_model_folder(name, bomb, run, tiny_fit, tiny_model_folder, crystal_cif, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (model / "weights.model").write_bytes(bomb)
    run("score", crystal_cif, "--model", model, "--head", tiny_fit.folder, code=0)
    (model / name).write_bytes(bomb)
    run("score", crystal_cif, "--model", model, "--head", tiny_fit.folder, code=2)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000001.parquet", "weights.model"])
def test_files_of_a_store(name, bomb, run, tiny_fit, tiny_store, tmp_path):
    store = shutil.copytree(tiny_store, tmp_path / "store")
    (store / name).write_bytes(bomb)
    run("audit", store, tmp_path / "report", "--head", tiny_fit.folder, "--no-plots")
    if name != "weights.model":
        run("fit", store, tmp_path / "head", code=2)
        run("compare", store, tmp_path / "compared", "--methods", "constant", code=2)
        run("merge", tmp_path / "merged", store, code=2)


def test_a_store_cannot_name_a_checkpoint(bomb, run, tiny_fit, tiny_store, tmp_path):
    from dataclasses import replace

    from mace_bounds.features.manifest import read_manifest, write_manifest

    store = shutil.copytree(tiny_store, tmp_path / "store")
    (tmp_path / "weights.model").write_bytes(bomb)
    write_manifest(store, replace(read_manifest(store), model=str(tmp_path / "weights.model")))
    run("audit", store, tmp_path / "report", "--head", tiny_fit.folder, "--no-plots", code=0)


def test_structures(bomb, run, marker, tiny_fit, tiny_model_folder, tmp_path):
    """Files of every kind that are pickles, and entries that name modules: each is a row with its reason."""
    folder = tmp_path / "files"
    folder.mkdir()
    for k, suffix in enumerate(
        ("json", "jsonl", "extxyz", "cif", "vasp", "json.gz", "pkl", "npy", "traj", "xml")
    ):
        (folder / f"{k}.{suffix}").write_bytes(bomb)
    module = {"@module": "subprocess", "@class": "Popen", "args": ["touch", str(marker)]}
    entries = [
        {"@module": "os", "@class": "system", "command": f"touch {marker}"},
        {"@module": "pathlib", "@class": "Path", "@callable": "touch", "@bound": str(marker)},
        {"structure": module, "energy": -1},
    ]
    (folder / "entries.json").write_text(json.dumps(entries))
    files = sorted(folder.iterdir())
    run("score", *files, "--model", tiny_model_folder, "--head", tiny_fit.folder, code=1)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "pkl", "pickle", "csv.gz", "npy"])
def test_tables_of_predictions(suffix, bomb, run, tiny_store, tmp_path):
    table = tmp_path / f"table.{suffix}"
    table.write_bytes(bomb)
    options = ("--predictions", table, "--energy-column", "e")
    run("audit", tiny_store, tmp_path / "report", *options, code=2)


def test_folders_that_are_gone_on_with(bomb, run, tiny_store, labelled_file, tmp_path):
    """A folder that the same command fills again: of an audit, a comparison, a build."""
    for command, names in {
        "audit": ("summary.json", "bounds.parquet", "features/manifest.json", "heads/full/config.json"),
        "compare": ("settings.json", "splits.csv", "state.json", "summary.json"),
        "build": ("state.json", "build.json", "features/manifest.json", "head/config.json"),
    }.items():
        out = tmp_path / command
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(bomb)
        source = (
            (out, "--source", labelled_file, "--model", "mini") if command == "build" else (tiny_store, out)
        )
        run(command, *source)
    run("plot", tmp_path / "audit", code=2)


def test_what_lies_beside_a_checkpoint_of_the_user(
    bomb, run, tiny_fit, tiny_model_folder, crystal_cif, tmp_path, monkeypatch
):
    """Files called as mini, its weights or mace's models, where the user's own checkpoint is and commands run."""
    import torch

    from mace_bounds import load_model

    own = tmp_path / "own.model"
    with warnings.catch_warnings(action="ignore"):  # torch warns when it packs e3nn's compiled parts
        torch.save(load_model(tiny_model_folder, dtype="float64").module, own)
    beside = ("mini", "medium-mpa-0", "weights.safetensors", "weights.model", "weights.pt", "config.json")
    for name in (*beside, "mini.model", "own.pt", "compositions.npy", "head.safetensors"):
        (tmp_path / name).write_bytes(bomb)
    monkeypatch.chdir(tmp_path)
    assert "tiny-head" in run("score", crystal_cif, "--model", own, "--head", tiny_fit.folder, code=0)
    assert "head mini" in run("score", crystal_cif, "--model", "mini", code=0)
    for name in ("own.pt", "mini.model"):
        for head in ((), ("--head", tiny_fit.folder)):
            assert "Path.touch" in run(
                "score", crystal_cif, "--model", tmp_path / name, *head, code=2
            ).replace("\n", "")
    run("score", crystal_cif, "--model", tmp_path, code=2)
    shutil.copy(tiny_fit.folder / "config.json", tmp_path)
    run("score", crystal_cif, "--model", own, "--head", tmp_path, code=2)


@pytest.fixture(scope="module")
def crystal_cif(tmp_path_factory):
    from ase.build import bulk
    from ase.io import write

    path = tmp_path_factory.mktemp("cif") / "one.cif"
    write(path, bulk("NaCl", "rocksalt", 5.64))
    return path
