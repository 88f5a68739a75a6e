"""A Materials Project whose labels a model of MACE-MPA-0's kind nearly gets right; that model in mace's cache."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.mp_server import KEY, Project, document_of, entry
from mace_bounds.cli import app
from mace_bounds.structures import read

N_CRYSTALS = 64
NARROW = {
    "hidden_irreps": "8x0e+8x1o",
    "num_bessel": 6,
    "r_max": 4.5,
}  # else as MACE-MPA-0, also its readouts


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Folder for XDG_CACHE_HOME, with a checkpoint of random weights where mace keeps that of MACE-MPA-0."""
    import torch

    import mpa0_architecture
    from mace_bounds.backbones import find_weights

    folder = tmp_path_factory.mktemp("cache")
    module = mpa0_architecture.build(mpa0_architecture.MPA_0 | NARROW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        weights = find_weights("medium-mpa-0")
        assert not weights.here
        weights.path.parent.mkdir()
        torch.save(module.float(), weights.path)
        assert find_weights("medium-mpa-0").here
    return folder


@pytest.fixture(scope="session")
def documents(cache, labelled_crystals):
    """Documents of made crystals: the model's energies, a smooth error and heavy-tailed noise."""
    from mace_bounds.backbones import load_model
    from mace_bounds.features import extract_rows

    records = list(read(labelled_crystals[:N_CRYSTALS]))
    model = load_model(next((cache / "mace").iterdir()))
    rng, documents = np.random.default_rng(3), []
    energies = extract_rows(records, model).table["energy_model_ev"]
    for k, (record, energy_ev) in enumerate(zip(records, energies, strict=True)):
        crystal, n = record.crystal, len(record.crystal.numbers)
        structure = crystal.to_structure()
        made = entry(f"mp-{k + 1}", crystal.chemical_system)
        made["composition"] = {str(e): float(c) for e, c in structure.composition.items()}
        made["structure"] = structure.as_dict()
        made["energy"] = float(energy_ev + n * (0.002 * (crystal.volume / n - 18) + 0.03 * rng.standard_t(3)))
        documents.append(document_of(made))
    return documents


@pytest.fixture
def project(documents):
    """The server, filled."""
    return Project(list(documents))


@pytest.fixture
def settings(cache, monkeypatch):
    """A machine that has the key and the model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.delenv("MP_API_ENDPOINT", raising=False)
    return monkeypatch


@pytest.fixture
def run(settings):  # noqa: ARG001
    """Run a command in this process; returns click's result."""
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])
