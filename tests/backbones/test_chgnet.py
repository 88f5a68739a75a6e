"""CHGNet 0.3.0 beside the authors' own code, and its corrections beside those that the Materials Project states."""

from __future__ import annotations

import contextlib
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.hard_cells import HARD_CELLS
from mace_bounds import BoundsPredictor, list_models, load_model, read
from mace_bounds.backbones import Backbone, chgnet, digest_of, find_weights, mp2020_correction_ev
from mace_bounds.backbones.chgnet import backbone, corrections, graph
from mace_bounds.backbones.chgnet.backbone import chgnet_digest
from mace_bounds.errors import ModelError, StructureError
from mace_bounds.features import ExtractSettings, extract_rows
from mace_bounds.structures import Crystal

pytestmark = pytest.mark.filterwarnings(
    "ignore:Converting a tensor with requires_grad"  # in CHGNet's own code
)
needs_chgnet = pytest.mark.skipif(
    backbone.find_file() is None, reason="the package chgnet, whose wheel holds the weights, is not installed"
)


def crystal_of(atoms: Atoms) -> Crystal:
    (record,) = read(atoms)
    assert record.crystal is not None, record.reason
    return record.crystal


def rattled(name: str, structure: str, a: float, seed: int = 0, scale: float = 1.0) -> Crystal:
    atoms = bulk(name, structure, a=a * scale, cubic=True)
    atoms.rattle(0.08, seed=seed)
    return crystal_of(atoms)


CRYSTALS = [
    rattled("NaCl", "rocksalt", 5.64),
    rattled("ZnS", "zincblende", 5.41, 1),
    rattled("CsCl", "cesiumchloride", 4.12, 2),
    rattled("Fe", "bcc", 2.87, 3),
    rattled("MgO", "rocksalt", 4.21, 4, 0.85),
    rattled("MgO", "rocksalt", 4.21, 5, 1.5),
    rattled("FeO", "rocksalt", 4.3, 6),
    *(
        cell
        for name, cell in HARD_CELLS.items()
        # CHGNet's own search for neighbours takes gigabytes where atoms are far outside of the cell
        if name not in {"isolated atom", "far outside of the cell", "200 atoms", "300 atoms, skewed"}
    ),
]


N_REAL = 7


@pytest.fixture(scope="module")
def model():
    return load_model("chgnet", device="cpu")


@pytest.fixture(scope="module")
def reference():
    """The authors' network and code."""
    own = pytest.importorskip("chgnet.model", reason="the package chgnet is not installed")
    with contextlib.redirect_stdout(io.StringIO()):
        network = own.CHGNet.load(use_device="cpu", verbose=False)
    return network.eval()


def corrected(model, crystals):
    """Energies per atom with their MP2020 corrections, as CHGNet gives them."""
    n_atoms = np.array([len(c.numbers) for c in crystals])
    corrections = np.array([mp2020_correction_ev(c) for c in crystals])
    return (model.extract(crystals).energy_ev + corrections) / n_atoms


@needs_chgnet
def test_it_is_the_energy_of_predict_structure(model, reference):
    wanted = [reference.predict_structure(c.to_structure(), task="e")["e"] for c in CRYSTALS]
    got = corrected(model, CRYSTALS)
    assert got[:N_REAL] == pytest.approx(np.array(wanted[:N_REAL], dtype=float), rel=1e-6)
    # atoms at random places: large terms cancel in CHGNet's own float32, which rounds positions
    assert got == pytest.approx(np.array(wanted, dtype=float), rel=0, abs=1e-5)


@needs_chgnet
def test_it_is_exact_in_float64(reference, monkeypatch):
    import copy

    import chgnet.graph.converter as converter
    import chgnet.model.model as network
    import torch

    for module in (converter, network):
        monkeypatch.setattr(module, "TORCH_DTYPE", torch.float64)
    double = copy.deepcopy(reference).double()
    references, double.composition_model = double.composition_model.fc.weight[0], None
    wanted = [
        double([double.graph_converter(c.to_structure())])["e"].item()
        + references[c.numbers - 1].mean().item()
        for c in CRYSTALS
    ]
    got = corrected(load_model("CHGNet-0.3.0", device="cpu", dtype="float64"), CRYSTALS)
    assert got == pytest.approx(np.array(wanted), rel=0, abs=2e-8)  # constants of CHGNet stay in float32


@needs_chgnet
def test_it_is_a_backbone_with_an_exact_last_layer(model):
    assert isinstance(model, Backbone)
    assert len(model.columns()) == 64
    block = model.extract(CRYSTALS, atoms=True)
    n_atoms = np.array([len(c.numbers) for c in CRYSTALS])
    energy = block.features @ model.theta0_ev[:-1] + n_atoms * model.theta0_ev[-1] + block.fixed_energy_ev
    assert energy == pytest.approx(block.energy_ev, abs=1e-10)
    sums = np.add.reduceat(block.atoms.astype(float), np.cumsum(n_atoms) - n_atoms)
    assert sums == pytest.approx(block.features, rel=1e-5, abs=1e-4)
    every = model.extract(CRYSTALS[:2], "descriptors")
    assert every.features.shape == (2, len(model.columns("descriptors"))) == (2, 256)


@needs_chgnet
def test_a_batch_and_its_memory_change_round_off_only(model):
    together = model.extract(CRYSTALS)
    little = replace(model, memory_bytes=1e6).extract(CRYSTALS[::-1])
    n_atoms = np.array([len(c.numbers) for c in CRYSTALS])
    assert together.energy_ev / n_atoms == pytest.approx(little.energy_ev[::-1] / n_atoms, rel=0, abs=1e-5)


@needs_chgnet
def test_workers_get_the_same_model(model):
    again = pickle.loads(pickle.dumps(model))
    assert (again.extract(CRYSTALS[:3]).energy_ev == model.extract(CRYSTALS[:3]).energy_ev).all()


@needs_chgnet
@settings(max_examples=8, deadline=None)
@given(
    turn=st.permutations([0, 1, 2]),
    shear=st.integers(-3, 3),
    shift=st.floats(-9, 9),
    repeats=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 2)]),
    which=st.sampled_from([0, 1, 3, 6]),
)
def test_the_choice_of_the_cell_changes_nothing(turn, shear, shift, repeats, which):
    model = load_model("chgnet", device="cpu", dtype="float64")
    crystal = CRYSTALS[which]
    atoms = crystal.to_atoms() * repeats
    cell = np.array(atoms.cell)[turn]
    cell[1] += shear * cell[0]
    other = Crystal(atoms.numbers.astype(np.int64), atoms.positions + shift, cell)
    one, two = model.extract([crystal]), model.extract([other])
    per_atom = one.energy_ev[0] / len(crystal.numbers), two.energy_ev[0] / len(other.numbers)
    assert per_atom[0] == pytest.approx(per_atom[1], abs=1e-8)


def test_its_tensors_are_known():
    if backbone.find_file() is not None:
        assert chgnet_digest(backbone.read_weights()) == backbone.DIGEST
    assert digest_of("CHGNet") == digest_of("chgnet") == backbone.DIGEST


def cell_of(formula: dict[str, int], distance: float, bonded: str | None = None) -> Crystal:
    """Atoms on a wide grid, but for two of one element that are bonded."""
    symbols = [symbol for symbol, n in formula.items() for _ in range(n)]
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)], dtype=float)
    positions = grid[: len(symbols)] * distance
    if bonded is not None:
        one, two = [k for k, symbol in enumerate(symbols) if symbol == bonded][:2]
        positions[two] = positions[one] + [1.45, 0, 0]
    return crystal_of(Atoms(symbols, positions=positions, cell=[3 * distance] * 3, pbc=True))


@pytest.mark.parametrize(
    "formula, bonded, per_formula_ev",
    [
        # as stated by the Materials Project for its entries (MP2020 energy adjustments)
        ({"Na": 1, "Cl": 1}, None, -0.614),
        ({"Li": 1, "Fe": 1, "P": 1, "O": 4}, None, 4 * -0.687 - 2.256),  # mp-1176699
        ({"Y": 2, "O": 3}, None, 3 * -0.687),  # mp-775907
        ({"Fe": 1, "O": 2}, None, 2 * -0.687 - 2.256),  # mp-1359196
        ({"Li": 2, "O": 2}, "O", 2 * -0.465),  # a peroxide
        ({"Fe": 1, "F": 2}, None, 2 * -0.462 - 2.256),
        ({"Fe": 1, "S": 1}, None, -0.503),  # no U without oxygen or fluorine
        ({"Fe": 3, "Al": 1}, None, 0.0),
        ({"Si": 2}, None, 0.0),
    ],
)
def test_corrections_are_those_of_the_materials_project(formula, bonded, per_formula_ev):
    assert mp2020_correction_ev(cell_of(formula, 2.6, bonded)) == pytest.approx(per_formula_ev, abs=1e-9)


def test_a_sulfate_has_the_correction_of_its_oxygen_only():
    sulfate = [[0, 0, 0], *(1.49 / np.sqrt(3) * np.array([[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]))]
    atoms = Atoms("SO4K2", positions=[*sulfate, [3, 0, 0], [0, 3, 0.5]], cell=[6.0, 6.2, 5.8], pbc=True)
    assert mp2020_correction_ev(crystal_of(atoms)) == pytest.approx(4 * -0.687)


def test_other_numbers_of_the_corrections_are_noticed(monkeypatch):
    monkeypatch.setattr(corrections, "_scheme", corrections._scheme.__wrapped__)
    assert corrections._scheme().comp_correction["oxide"] == -0.687
    monkeypatch.setattr(corrections, "_NUMBERS_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="another version of pymatgen"):
        corrections._scheme()


@needs_chgnet
def test_what_cannot_be_run_has_a_reason_and_the_others_go_on(model, monkeypatch):
    monkeypatch.setattr(graph, "MAX_ANGLES", 20_000)
    far = Atoms("Cu", cell=[15, 15, 15], pbc=True)
    noble = bulk("NaCl", "rocksalt", 5.0)
    noble.symbols[0] = "He"
    dense = bulk("Cu", "fcc", 1.4, cubic=True) * (2, 2, 2)
    records = list(read([bulk("Si"), far, noble, dense, molecule_in_a_box(), bulk("Cu")]))
    rows = extract_rows(records, model)
    reasons = list(rows.table["reason"])
    assert list(rows.table["reason"].isna()) == [True, False, False, False, True, True]
    assert "1 of 1 atoms have no neighbour within 6 Å" in reasons[1]
    assert "not defined for compounds of He" in reasons[2]
    assert "angles between bonds" in reasons[3]
    assert np.isfinite(rows.features[[0, 5]]).all()
    with pytest.raises(StructureError):
        mp2020_correction_ev(records[2].crystal)


def molecule_in_a_box() -> Atoms:
    atoms = molecule("H2O")
    atoms.set_cell([20, 20, 20])
    atoms.pbc = True
    return atoms


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(backbone, "find_spec", lambda _: None)
    for call in (load_model, find_weights, BoundsPredictor):
        with pytest.raises(ModelError, match=r'not installed: pip install "mace-bounds\[chgnet\]"'):
            call("chgnet")
    (listed,) = [model for model in list_models() if model.name == "chgnet"]
    assert not listed.here
    assert "mace-bounds[chgnet]" in listed.install


def test_another_file_is_not_read(monkeypatch, tmp_path):
    (tmp_path / "w").write_bytes(b"something else")
    monkeypatch.setattr(backbone, "find_file", lambda: tmp_path / "w")
    with pytest.raises(ModelError, match="is not the file of CHGNet"):
        backbone.read_weights()


@needs_chgnet
def test_options_that_do_not_exist_are_refused():
    with pytest.raises(ModelError, match="no head"):
        load_model("chgnet", head="pbe")
    with pytest.raises(ModelError, match="dtype"):
        load_model("chgnet", dtype="float16")
    assert chgnet.ChgnetFamily().training_compositions("chgnet", backbone.DIGEST) is None
    with pytest.raises(ModelError, match="not the one"):
        chgnet.ChgnetFamily().training_compositions("chgnet", "0" * 64)


@needs_chgnet
def test_bounds_of_a_crystal_name_the_model_and_the_quantity():
    predictor = BoundsPredictor("chgnet", settings=ExtractSettings(device="cpu"))
    table = predictor.predict([bulk("NaCl", "rocksalt", 5.64), bulk("Si")])
    assert list(table["reason"]) == [None, None]
    assert set(table["model"]) == {"chgnet"}
    assert set(table["quantity"]) == {"uncorrected PBE(+U) total energy"}
    # DFT of the Materials Project, uncorrected: -6.78 eV for NaCl (corrected -7.39), -10.85 eV for two silicon atoms
    assert table["energy_model_ev"].to_numpy() == pytest.approx([-6.78, -10.85], abs=0.3)
    assert (table["energy_lower_ev"] < table["energy_upper_ev"]).all()
