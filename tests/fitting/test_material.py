"""Heads of one chemistry: the regression against numpy, and a whole one on labels of known weights."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from mace_bounds import BoundsPredictor
from mace_bounds.backbones import load_model
from mace_bounds.bounds import find_head, list_heads, read_card
from mace_bounds.calibration import load_head, readout_coefficients
from mace_bounds.cli import app
from mace_bounds.errors import HeadError, LabelError, SourceError
from mace_bounds.fitting import fit_material, frames_of, read_frames
from mace_bounds.fitting.material.config import ENERGIES, MaterialConfig
from mace_bounds.fitting.material.derivatives import FORCES, STRESS, GradientRows
from mace_bounds.fitting.material.regression import (
    LeftOutFamily,
    MaterialRows,
    fit_rows,
    material_of,
    row_scales,
)
from mace_bounds.head import PopsPrediction
from mace_bounds.structures import read

N_FEATURES, N_ELEMENTS = 4, 118
SHIFT_EV = -4.25


class Shards:
    """Derivatives in memory: forces of 3 components for each of 40 frames, stress for every second one."""

    def __init__(self, theta, noise, rng):
        self.parts = []
        for frame in range(40):
            kinds = (FORCES, 3), (STRESS, 6)
            for kind, n in kinds[: 1 + frame % 2]:
                x = rng.standard_normal((n, N_FEATURES))
                y = x @ theta + noise[kind] * rng.standard_normal(n)
                self.parts.append(GradientRows(kind, frame, x, y))

    def rows(self):
        yield from self.parts


def made_rows(noise, seed=0):
    rng = np.random.default_rng(seed)
    theta = np.array([0.5, -1.0, 2.0, 0.1])
    fractions = np.zeros((200, N_ELEMENTS))
    fractions[:, 73] = 1.0
    features = rng.standard_normal((200, N_FEATURES)) * np.array([1.0, 5.0, 0.2, 1.0])
    y = features @ theta + SHIFT_EV + noise[ENERGIES] * rng.standard_normal(200)
    x = np.concatenate([features, fractions], axis=1)
    return MaterialRows(x, y, fractions, np.full(200, "one"), Shards(theta, noise, rng)), theta


def stacked(rows, scale, mask):
    """All rows as one matrix with the count of atoms as last column, each multiplied by the scale of its kind."""
    parts = [(scale[kind] * x, scale[kind] * y) for kind, x, y in rows.parts(mask)]
    return map(np.concatenate, zip(*parts, strict=True))


NOISE = {ENERGIES: 0.01, FORCES: 0.2, STRESS: 0.003}
ALL = np.ones(200, dtype=bool)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (4.0, 1.0, 0.25)])
def test_every_kind_of_rows_is_divided_by_its_residual(weights):
    """At the fixed point the residuals of numpy's least squares over all rows have the root mean squares √weight."""
    rows, _ = made_rows(NOISE)
    config = MaterialConfig(energy_weight=weights[0], forces_weight=weights[1], stress_weight=weights[2])
    scale = row_scales(rows, ALL, config)
    a, b = stacked(rows, scale, ALL)
    theta = np.linalg.lstsq(a, b, rcond=None)[0]
    for kind, weight in zip((ENERGIES, FORCES, STRESS), weights, strict=True):
        rest = [scale[k] * (y - x @ theta) for k, x, y in rows.parts(ALL) if k == kind]
        assert np.sqrt(np.mean(np.concatenate(rest) ** 2)) == pytest.approx(np.sqrt(weight), rel=1e-4)
        assert 1.0 / scale[kind] == pytest.approx(NOISE[kind] / np.sqrt(weight), rel=0.25)


def test_the_mean_is_least_squares_over_energies_forces_and_stress():
    """Ridge with the head's own prior, in closed form; with little noise it is numpy's least squares."""
    mask = np.arange(200) % 5 > 0
    for noise, tolerance in ((NOISE, None), (dict.fromkeys(NOISE, 1e-7), 1e-6)):
        rows, theta = made_rows(noise)
        scale = row_scales(rows, mask, MaterialConfig())
        head = fit_rows(rows, mask, scale)
        columns = head.design.active
        assert np.flatnonzero(columns).tolist() == [*range(N_FEATURES), N_FEATURES + 73]
        found = head.ridge.coefficients / head.design.scale
        a, b = stacked(rows, scale, mask)
        offset = rows.y[mask].mean()
        b = b - offset * a[:, -1]
        z = a / head.design.scale
        ridge = head.ridge.lambda_ / head.ridge.alpha
        wanted = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ b) / head.design.scale
        wanted[-1] += offset
        assert found == pytest.approx(wanted, rel=1e-8)
        if tolerance is not None:
            b = b + offset * a[:, -1]
            assert found == pytest.approx(np.linalg.lstsq(a, b, rcond=None)[0], rel=tolerance)
            assert found == pytest.approx([*theta, SHIFT_EV], rel=tolerance)


def test_the_envelope_holds_every_row_that_made_a_correction():
    """A correction makes the model right on its row, and the unclipped box holds all corrections."""
    rows, _ = made_rows(NOISE)
    scale = row_scales(rows, ALL, MaterialConfig())
    head = fit_rows(rows, ALL, scale)
    z = rows.x[:, head.design.active] / head.design.scale
    low, high = head.posteriors["hypercube"].support(z @ head.axes)
    error = rows.y - z @ head.ridge.coefficients
    leverage = (
        np.einsum("ij,ij->i", z @ head.ridge.whitening, z @ head.ridge.whitening) * scale[ENERGIES] ** 2
    )
    others = []
    for kind, x, _ in rows.parts(ALL):
        u = x / head.design.scale @ head.ridge.whitening
        others.append(scale[kind] ** 2 * np.einsum("ij,ij->i", u, u))
    made = leverage >= np.median(np.concatenate(others)) * (1 + 1e-9)
    assert made.sum() > 20
    assert (low[made] - 1e-12 <= error[made]).all()
    assert (error[made] <= high[made] + 1e-12).all()


def family_left_out(name, ratio, std, half):
    """A family whose errors are multiples of the ellipsoid's standard deviation, in an envelope of a half-width."""
    ratio = np.asarray(ratio, dtype=float)
    same = np.full(len(ratio), 1.0)
    said = PopsPrediction(
        mean=0 * same, epistemic_std=same, misspecification_std=0.5 * std * same, support_lower=-half * same,
        support_upper=half * same, leverage=same, ellipsoid_std=std * same, unseen_columns=np.zeros(len(ratio), int),
    )  # fmt: skip
    return LeftOutFamily(name, std * ratio, said)


def test_intervals_of_unknown_families_are_those_of_the_worst():
    """Of 99 equidistant ratios the quantile at 95 % is the 95th; 20 have none at 99 %, and give their largest."""
    even = np.arange(1, 100) / 100
    families = [family_left_out("a", even, 0.01, 0.1), family_left_out("b", -2 * even, 0.02, 0.2)]
    few = family_left_out("c", np.linspace(0.1, 1.5, 20), 0.03, 0.3)
    material, lines = material_of((74,), "x", [*families, few], (0.5, 0.95, 0.99))
    assert material.draws == "ellipsoid"
    assert material.left_out == pytest.approx((1.0, 1.9, 1.98))
    assert material.stretch == pytest.approx(1.0)
    assert [line["stretch"] for line in lines] == pytest.approx(
        [0.95 / 1.959964, 1.9 / 1.959964, 1.5 / 1.959964], rel=1e-6
    )
    assert material_of((74,), "x", families, (0.5, 0.95))[0].left_out == ()


def test_an_ellipsoid_that_is_wider_than_the_envelope_gives_no_draws():
    """A uniform spread over the envelope has 0.577 of its half-width as standard deviation."""
    even = np.arange(1, 100) / 100
    families = [family_left_out(name, even, 0.01, 0.1) for name in "ab"]
    for half, draws in ((0.01 / 0.57, "ellipsoid"), (0.01 / 0.58, "hypercube")):
        material, _ = material_of(
            (74,), "x", [*families, family_left_out("c", 3 * even, 0.01, half)], (0.95,)
        )
        assert material.draws == draws
        assert material.left_out == pytest.approx((2.85 if draws == "ellipsoid" else 5.7,))
        assert material.stretch == pytest.approx(material.left_out[0] / 1.959964, rel=1e-6)


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder, dtype="float64")


@pytest.fixture(scope="module")
def known(model):
    """Weights a little off the frozen ones, and aluminium cells whose labels are exactly those of these weights."""
    rng = np.random.default_rng(7)
    change = 0.02 * rng.standard_normal(len(model.columns()))
    atoms = []
    for k in range(66):
        cell = bulk("Al", ("bcc", "fcc", "sc")[k % 3], a=(3.24, 4.04, 2.73)[k % 3], cubic=k % 3 == 0)
        cell.set_cell(cell.cell @ (np.eye(3) + 0.04 * rng.standard_normal((3, 3))), scale_atoms=True)
        cell.rattle(0.08, seed=k)
        cell.info |= {"id": f"cell {k}", "family": ("bcc", "fcc", "sc")[k % 3]}
        atoms.append(cell)
    crystals = [record.crystal for record in read(atoms)]
    for cell, crystal in zip(atoms, crystals, strict=True):
        said = model.evaluate(crystal).derivatives(change)
        cell.info["REF_energy"] = float(said.energy_ev[0]) - SHIFT_EV * len(cell)
        cell.info["REF_stress"] = said.stress_ev_a3[0]
        cell.arrays["REF_forces"] = said.forces_ev_a[0]
    return change, atoms


@pytest.fixture(scope="module")
def made(known, tiny_model_folder, tmp_path_factory):
    """The head that the command makes of them, from a compressed file."""
    folder = tmp_path_factory.mktemp("material")
    write(folder / "cells.extxyz.gz", known[1], format="extxyz")
    words = [
        "fit-material",
        folder / "cells.extxyz.gz",
        folder / "made",
        "--model",
        tiny_model_folder,
        "--dtype",
        "float64",
    ]
    words += [
        "--shift-ev-per-atom",
        SHIFT_EV,
        "--reference",
        "a made reference",
        "--atoms-per-family",
        "40",
        "--json",
    ]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "made", json.loads(result.stdout)


def test_known_weights_are_found_again(known, made, model):
    """Labels are linear in the features, so that errors are round-off."""
    change, atoms = known
    theta = readout_coefficients(load_head(made[0]), model)
    crystals = [record.crystal for record in read(atoms)]
    features = model.extract(crystals).features
    wanted = features @ (model.theta0_ev[:-1] + change)
    n_atoms = np.array([len(cell) for cell in atoms])
    got = np.column_stack([features, n_atoms]) @ theta.mean - n_atoms * model.theta0_ev[-1]
    assert np.abs((got - wanted) / n_atoms).max() < 1e-5
    summary = made[1]
    everything = next(row for row in summary["families"] if row["family"] == "all")
    assert everything["mae_mev_per_atom"] < 0.01
    assert everything["mae_forces_ev_per_a"] < 1e-4
    assert everything["in_envelope"] == 1.0
    assert {row["family"] for row in summary["families"]} == {"bcc", "fcc", "sc", "all"}


def test_a_predictor_gives_the_refitted_energy_and_says_so(known, made, model):
    predictor = BoundsPredictor(model, head=made[0])
    table = predictor.predict(known[1][:4])
    labels = [cell.info["REF_energy"] + SHIFT_EV * len(cell) for cell in known[1][:4]]
    assert table["energy_expected_ev"].tolist() == pytest.approx(labels, abs=1e-4)
    assert all("refit_energy" in flags for flags in table["flags"])
    assert "a made reference" in predictor.note
    assert (table["support_lower_mev_per_atom"] <= table["expected_error_mev_per_atom"]).all()
    theta = predictor.coefficients()
    rows = predictor.extract(list(read(known[1][:4])))
    a = np.column_stack([rows.features, table["n_atoms"]])
    energy = a @ theta.mean + rows.table["fixed_energy_ev"].to_numpy()
    assert energy == pytest.approx(table["energy_expected_ev"].to_numpy(), abs=1e-8)
    low, high = theta.envelope(a)
    n = table["n_atoms"].to_numpy()
    own = a @ predictor.model.theta0_ev
    assert 1e3 * (low - own) / n == pytest.approx(table["support_lower_mev_per_atom"].to_numpy(), abs=1e-6)
    assert 1e3 * (high - own) / n == pytest.approx(table["support_upper_mev_per_atom"].to_numpy(), abs=1e-6)


def test_other_elements_are_refused_in_one_sentence(known, made, model):
    predictor = BoundsPredictor(model, head=made[0])
    table = predictor.predict([bulk("NaCl", "rocksalt", a=5.64), known[1][0]])
    assert table["reason"].iloc[0] == (
        "the head is for Al alone, and the structure holds Cl, Na; use a head of all chemistries (leave out --head)."
    )
    assert table["reason"].isna().tolist() == [False, True]


def test_it_is_used_only_where_it_is_named(made, model, monkeypatch):
    """A head of one chemistry is not what a model's name stands for."""
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(made[0].parent))
    assert "made" in [card.name for card in list_heads()]
    assert read_card(made[0]).chemistry == "Al"
    assert find_head(model.name, "made", model.digest) == made[0]
    with pytest.raises(HeadError, match="no installed head fits"):
        find_head(model.name, digest=model.digest)


def test_the_same_command_makes_the_same_head(made, tiny_model_folder):
    """Features and derivatives are kept, so that it takes no model; all else is deterministic."""
    folder = made[0].parent
    words = [
        "fit-material",
        folder / "cells.extxyz.gz",
        folder / "again",
        "--model",
        tiny_model_folder,
        "--dtype",
        "float64",
    ]
    words += ["--shift-ev-per-atom", SHIFT_EV, "--reference", "a made reference", "--atoms-per-family", "40"]
    words += ["--work", folder / "made.work"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert (folder / "again/head.safetensors").read_bytes() == (made[0] / "head.safetensors").read_bytes()
    assert "Families left out" in result.stdout


def test_a_family_that_is_left_out_is_only_measured(known, model, tmp_path):
    """Its labels take no part, not even where they are wrong, and its errors are those of what the others say."""
    atoms = [cell.copy() for cell in known[1]]
    for cell in atoms[:6]:
        cell.info |= {"family": "apart", "REF_energy": cell.info["REF_energy"] + 0.5 * len(cell)}
    frames = frames_of(atoms, shift_ev_per_atom=SHIFT_EV)
    report = fit_material(
        frames, model, tmp_path / "work", MaterialConfig(atoms_per_family=40, without="apart")
    )
    apart = report.families.set_index("family").loc["apart"]
    assert (apart["n_fit"], apart["n_test"]) == (0, 6)
    assert apart["mae_mev_per_atom"] == pytest.approx(500, abs=0.1)
    everything = report.families.set_index("family").loc["all"]
    assert everything["n_fit"] + everything["n_test"] == 66
    with pytest.raises(HeadError, match="frames are left to fit"):
        fit_material(frames, model, tmp_path / "work", MaterialConfig(atoms_per_family=40, without="sc, fcc"))
    with pytest.raises(HeadError, match="no frame is of the family hcp"):
        fit_material(frames, model, tmp_path / "work", MaterialConfig(atoms_per_family=40, without="hcp"))


def test_the_screen_names_the_energy(made, tiny_model_folder, tmp_path):
    write(tmp_path / "al.cif", bulk("Al", "fcc", a=4.04, cubic=True))
    result = CliRunner().invoke(
        app, ["score", str(tmp_path / "al.cif"), "--model", str(tiny_model_folder), "--head", str(made[0])]
    )
    assert result.exit_code == 0, result.output
    assert "E_refit" in result.stdout
    assert "relative to a made reference" in " ".join(result.stdout.split())


def test_heads_of_all_chemistries_have_no_coefficients():
    with pytest.raises(HeadError, match="of all chemistries"):
        readout_coefficients(load_head(find_head("mini")), load_model("mini"))


@pytest.mark.parametrize(
    ("label", "match"),
    [
        ({}, "no energy"),
        ({"energy": np.nan}, "unusable label .energy"),
        ({"energy": -1.0, "stress": np.zeros(5)}, "unusable label .stress"),
    ],
)
def test_frames_without_usable_labels_are_refused(label, match):
    cell = bulk("W")
    cell.info |= label
    with pytest.raises(LabelError, match=match):
        frames_of([cell])


def test_stress_in_six_numbers_is_the_tensor():
    cell = bulk("W")
    cell.info |= {"energy": -1.0, "stress": np.arange(6.0)}
    assert frames_of([cell])[0].stress_ev_per_a3.tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


def test_damaged_files_of_frames_are_named(tmp_path):
    (tmp_path / "x.extxyz").write_text("what\nis\nthis\n")
    with pytest.raises(SourceError, match=r"x.extxyz is no extended XYZ"):
        read_frames(tmp_path / "x.extxyz")
    with pytest.raises(SourceError, match="cannot be read"):
        read_frames(tmp_path / "y.extxyz")


def test_too_few_frames_are_refused(tmp_path):
    cell = Atoms("W", cell=2.7 * np.eye(3), pbc=True, info={"REF_energy": -12.0})
    write(tmp_path / "x.extxyz", [cell] * 5, format="extxyz")
    words = ["fit-material", str(tmp_path / "x.extxyz"), str(tmp_path / "head"), "--model", "mini"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "60 frames" in result.output
