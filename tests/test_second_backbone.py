"""Everything works with a backbone that is no MACE: the pair potential of docs/dev/add-a-backbone.md."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from helpers.pair_backbone import CENTRES_A, PairBackbone
from helpers.store_bytes import digests
from mace_bounds import (
    AuditConfig,
    BoundsPredictor,
    FitConfig,
    audit,
    compare,
    extract,
    fit,
    load_model,
    read,
    score,
)
from mace_bounds.backbones import Backbone, digest_of
from mace_bounds.benchmark import CompareConfig
from mace_bounds.errors import HeadError
from mace_bounds.features import ExtractSettings

IN_PROCESS = ExtractSettings(shard_rows=40, symmetry=True, workers=1)
CONFIG = FitConfig(fit_share=0.5, calibration_share=0.3, ellipsoid=False, n_folds=3)


@pytest.fixture(scope="module")
def model():
    return PairBackbone()


@pytest.fixture(scope="module")
def crystals(model, labelled_crystals):
    """Crystals labelled with the pair potential's energy, a smooth error and heavy-tailed noise."""
    rng = np.random.default_rng(7)
    made = [atoms.copy() for atoms in labelled_crystals]
    energies = model.extract([record.crystal for record in read(made)]).energy_ev
    for atoms, energy_ev in zip(made, energies, strict=True):
        error = 0.03 * np.sin(atoms.get_atomic_numbers().mean() / 5) + 0.02 * rng.standard_t(3)
        atoms.info["REF_energy"] = float(energy_ev + len(atoms) * error)
    return made


@pytest.fixture(scope="module")
def store(crystals, model, tmp_path_factory):
    return extract(read(crystals), tmp_path_factory.mktemp("pair") / "store", model, IN_PROCESS)


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    return fit(store, tmp_path_factory.mktemp("pair") / "head", CONFIG)


def test_it_is_one(model):
    assert isinstance(model, Backbone)
    assert load_model(model) is model
    assert digest_of(model) == model.digest != PairBackbone(shift_ev=-0.4).digest


def test_its_energy_is_that_of_a_sum_over_pairs(model):
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [2.1, 1.9, 2.0]], cell=[4.1, 3.9, 4.3], pbc=True)
    block = model.extract([record.crystal for record in read(atoms)], atoms=True)
    i, j, distances = neighbor_list("ijd", atoms, model.cutoff_a)
    energy = -0.02 * (11 + 17) + 2 * model.shift_ev
    for a, b, d in zip(i, j, distances, strict=True):
        for k, centre in enumerate(CENTRES_A):
            radial = np.exp(-((d - centre) ** 2)) * (1 - d / model.cutoff_a) ** 2
            charge = np.sqrt(atoms.numbers[a] * atoms.numbers[b]) / 20
            energy += radial * (model.weights_ev[k] + charge * model.weights_ev[len(CENTRES_A) + k])
    assert block.energy_ev[0] == pytest.approx(energy, rel=1e-12)
    assert block.atoms.sum(axis=0) == pytest.approx(block.features[0], rel=1e-5)


@pytest.mark.slow
def test_worker_processes_make_the_same_store(crystals, model, store, tmp_path):
    settings = ExtractSettings(shard_rows=40, symmetry=True, workers=2)
    assert digests(extract(read(crystals), tmp_path / "s", model, settings).folder) == digests(store.folder)


def test_its_intervals_cover(report, model, crystals):
    measured = report.coverage.query("by == 'all'").set_index("level")["coverage"]
    assert measured[0.95] > 0.85  # 40 rows
    table = BoundsPredictor(model, report.head).predict(crystals)
    inside = (table["energy_lower_ev"] <= table["energy_dft_ev"]) & (
        table["energy_dft_ev"] <= table["energy_upper_ev"]
    )
    assert inside.mean() > 0.9
    assert set(table["model"]) == {"pair"}
    assert set(table["model_digest"]) == {model.digest[:12]}


def test_its_head_fits_no_other_model(report, crystals):
    with pytest.raises(HeadError):
        score(crystals[:2], model=PairBackbone(shift_ev=-0.4), head=report.head)


@pytest.mark.slow
def test_an_audit_takes_it(report, model, crystals, store, tmp_path):
    config = AuditConfig(plots=False, extract=IN_PROCESS)
    with_head = audit(crystals, tmp_path / "a", model=model, head=report.head, config=config)
    assert with_head.summary["counts"]["scored"] == len(crystals)
    own = AuditConfig(
        plots=False, cross_fit=True, extract=IN_PROCESS, fit=replace(CONFIG, n_folds=3, conformal="split")
    )
    crossed = audit(store.folder, tmp_path / "b", model=model, config=own)
    assert crossed.summary["model"]["digest"] == model.digest
    overall = crossed.coverage.query("by == 'all' and level == 0.95")
    assert overall["coverage"].between(0.88, 1).all(), crossed.coverage.head(8).to_string()  # 200 rows
    assert overall["n"].max() == len(crystals)


@pytest.mark.slow
def test_a_comparison_takes_it(store, tmp_path):
    compared = compare(
        store,
        tmp_path / "c",
        CompareConfig(fit=CONFIG, n_splits=1, methods=("constant", "mace_bounds"), plots=False),
    )
    assert {"constant", "mace_bounds"} <= set(compared.table["method"])


def test_torch_is_not_needed():
    script = "import sys; from helpers.pair_backbone import PairBackbone; from mace_bounds import load_model;"
    script += "load_model(PairBackbone()); print('torch' in sys.modules, 'mace' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=__file__.rpartition("/")[0],
    )
    assert done.stdout.split() == ["False", "False"]
