"""Fixtures that every room shares."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import settings
from pymatgen.core import Composition

from helpers import forked
from mace_bounds.structures import composition_key, composition_keys

LONG = (
    "test_docs.py",
    "test_kills.py",
    "test_fast.py",
    "test_processes.py",
    "test_model.py",
    "test_bench_features.py",
    "test_fit.py",
    "test_run.py",
    "test_gradients.py",
    "test_compare.py",
    "test_build_command.py",
    "test_downloading.py",
    "test_cross_fit.py",
    "test_second_backbone.py",
    "test_predictor.py",
    "test_workers.py",
    "test_page.py",
    "test_notebook.py",
    "test_device_check.py",
    "test_batching.py",
    "test_packaging.py",
)  # longest first, so that no worker waits for them in the end
settings.register_profile("suite", deadline=None)  # a test does not fail for what else the machine does
settings.load_profile("suite")
MADE_ELEMENTS = ("Li", "Na", "O", "F", "Fe", "Ti", "Cl", "S", "Mg", "Al")
TINY_ARCHITECTURE = {
    "r_max": 4.5,
    "num_bessel": 6,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityResidualInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "8x0e",
    "MLP_irreps": "8x0e",
    "correlation": 2,
    "radial_type": "bessel",
    "radial_MLP": [16],
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
    "use_reduced_cg": False,
    "avg_num_neighbors": 30.0,
    "atomic_inter_scale": 0.8,
    "atomic_inter_shift": 0.0,
}


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def _warm():
    """Start the server of processes early where many tests run, and so will need it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        forked.warm()


@pytest.fixture(scope="session", autouse=True)
def _models_load_once():
    """Load a folder of a model once for all commands in this process: to build the network takes most of their time."""
    from mace_bounds.backbones.mace import embedded
    from mace_bounds.features import settings

    loaded = {}

    def load_once(model, **options):
        folder = embedded.folder_of(model) if isinstance(model, (str, Path)) else None
        if folder is None:
            return load_model(model, **options)
        files = tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()))
        key = (folder.resolve(), files, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = load_model(model, **options)
        return loaded[key]

    load_model = settings.load_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "load_model", load_once)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """Return the folder of real DFT data beside the repository, or None where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if (folder / "README.md").is_file() else None


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    """Folder of a random MACE of 89 elements, as ``mini`` is kept; it "has seen" every eighth composition."""
    import torch

    from mace_bounds.backbones.mace import embedded as _embedded

    numbers = [*range(1, 84), *range(89, 95)]
    energies = (-3.0 - 3.0 * np.random.default_rng(0).random(len(numbers))).tolist()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _embedded.build(TINY_ARCHITECTURE, numbers, energies)
    config = {
        "architecture": TINY_ARCHITECTURE,
        "atomic_numbers": numbers,
        "atomic_energies_ev": energies,
    }
    seen = composition_keys([a.info["formula"] for a in made_crystals() if a.info["in_training"]])
    _embedded.save(folder, module, config, "# tiny\n", seen)
    return folder


@pytest.fixture(scope="session")
def labelled_crystals(tiny_model_folder) -> list[Atoms]:
    """200 small crystals whose label is the tiny model's energy, a smooth error and heavy-tailed noise."""
    from mace_bounds.backbones import load_model
    from mace_bounds.features import extract_rows
    from mace_bounds.structures import read

    crystals = made_crystals()
    rows = extract_rows(list(read(crystals)), load_model(tiny_model_folder))
    rng = np.random.default_rng(2)
    for atoms, energy_ev in zip(crystals, rows.table["energy_model_ev"], strict=True):
        shape = atoms.get_atomic_numbers().mean() / 30
        smooth = 0.05 * np.sin(4 * shape) + 0.004 * (atoms.get_volume() / len(atoms) - 18)
        error = smooth + 0.03 * (0.5 + shape) * rng.standard_t(3)
        atoms.info["REF_energy"] = float(energy_ev + len(atoms) * error)
    return crystals


@pytest.fixture(scope="session")
def labelled_file(labelled_crystals, tmp_path_factory) -> Path:
    """Return the labelled crystals as an extxyz file."""
    from ase.io import write

    path = tmp_path_factory.mktemp("crystals") / "made.extxyz"
    write(path, labelled_crystals, format="extxyz")
    return path


@pytest.fixture(scope="session")
def tiny_store(labelled_file, tiny_model_folder, tmp_path_factory) -> Path:
    """Return a feature store of the labelled crystals."""
    from mace_bounds.backbones import load_model
    from mace_bounds.features import ExtractSettings, extract
    from mace_bounds.structures import read

    folder = tmp_path_factory.mktemp("stores") / "store"
    extract(
        read(labelled_file), folder, load_model(tiny_model_folder), ExtractSettings(shard_rows=64, workers=1)
    )
    return folder


@pytest.fixture(scope="session")
def tiny_fit(tiny_store, tiny_model_folder, tmp_path_factory):
    """Fit a head to the store and write it; three tenths of the compositions only measure it."""
    from mace_bounds import FitConfig, fit

    config = FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split")
    folder = tmp_path_factory.mktemp("heads") / "tiny-head"
    return fit(tiny_store, folder, config, model=tiny_model_folder, repeats=2)


@pytest.fixture(scope="session")
def whole_fit(tiny_store, tiny_model_folder, tmp_path_factory):
    """Fit a head also to compositions of the model's own training, and write it."""
    from mace_bounds import CardNotes, FitConfig, fit

    config = FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split")
    folder = tmp_path_factory.mktemp("heads") / "whole-head"
    report = fit(tiny_store, config=config, model=tiny_model_folder, include_training=True)
    return report.save(folder, CardNotes(development="Chosen after looking."))


@pytest.fixture(scope="session")
def published_energies(tiny_store) -> dict[str, float]:
    """Energies of a model that is wrong by up to 60 meV/atom, by id."""
    from mace_bounds.features import FeatureStore

    table = FeatureStore(tiny_store).read().table
    wrong = 0.03 * (1 + np.sin(np.arange(len(table))))
    return dict(zip(table["id"], table["energy_ev"] - wrong * table["n_atoms"], strict=True))


@pytest.fixture(scope="session")
def published_store(tiny_store, published_energies, tmp_path_factory):
    """Return the store of the labelled crystals with these energies."""
    from mace_bounds.features import FeatureStore, store_with_energies

    folder = tmp_path_factory.mktemp("published") / "store"
    return store_with_energies(FeatureStore(tiny_store), folder, published_energies, "Another")


@pytest.fixture(scope="session")
def published_head(published_store, tmp_path_factory) -> Path:
    """Folder of a head of these energies, with joint errors."""
    from mace_bounds import FitConfig, fit

    config = FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split")
    return fit(published_store, tmp_path_factory.mktemp("published") / "head", config).folder


def made_crystals() -> list[Atoms]:
    """Make cells of one to six atoms of ten elements near the sites of a 2 x 2 x 2 grid; no labels."""
    rng = np.random.default_rng(1)
    crystals = []
    for index in range(200):
        kinds = rng.choice(MADE_ELEMENTS, rng.integers(1, 4), replace=False)
        symbols = [str(kind) for kind in kinds for _ in range(rng.integers(1, 3))]
        length = (8 * rng.uniform(11, 16)) ** (1 / 3)
        sites = np.array(list(product((0.25, 0.75), repeat=3)))[: len(symbols)]
        places = sites + 0.02 * rng.standard_normal(sites.shape)
        atoms = Atoms(symbols, scaled_positions=places, cell=[length] * 3, pbc=True)
        formula = Composition(atoms.get_chemical_formula()).reduced_formula
        atoms.info |= {"id": f"made-{index:04d}", "source": ("alpha", "beta")[index % 2], "formula": formula}
        atoms.info["in_training"] = int(composition_key(formula)) % 8 == 0
        crystals.append(atoms)
    return crystals
