"""From labelled rows to a calibrated head, on rows whose errors are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.toy_table import toy_table
from mace_bounds.calibration import (
    FitConfig,
    TrainedRows,
    fit_head,
    group_folds,
    head_inputs,
    load_head,
    residual_ev_per_atom,
)
from mace_bounds.calibration.fit import _Parts, cross_fit, row_weights, usable_rows
from mace_bounds.calibration.sources import SourceStudy
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.metrics import chemistry_class
from mace_bounds.structures import composition_keys

MANIFEST = Manifest("toy", "d" * 64, "Default", "readout", tuple("abcdef"), (0.0,) * 7, "float64", 8, {})

PLAIN = FitConfig(conformal="split", robust=False, ellipsoid=False)  # where the fit is not the subject
CROSSED = FitConfig(seed=3, n_folds=3, ellipsoid=False)


def toy_rows(n: int, seed: int, wide: float = 4.0) -> FeatureRows:
    """Rows whose residual is linear in the features plus noise that is ``wide`` times larger with oxygen."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    oxygen = rng.random(n) < 0.4
    size = rng.integers(1, 12, n)
    noise = rng.standard_t(4, n) * 0.02 * np.where(oxygen, wide, 1.0)
    residual = x @ np.array([0.1, -0.05, 0.0, 0.02, 0.0, 0.0]) + noise
    metals = rng.integers(20, 30, n)
    table = toy_table(
        residual,
        size,
        [[8, z] if o else [z] for o, z in zip(oxygen, metals, strict=True)],
        source=np.where(rng.random(n) < 0.1, "small", "large"),
        formula=[f"F{k}" for k in rng.integers(0, n // 3, n)],
        structure_hash=[f"{seed}-{i}" for i in range(n)],
    )
    return FeatureRows(table, x * size[:, None])


@pytest.fixture(scope="module")
def fitted():
    return fit_head(toy_rows(900, 0), MANIFEST, FitConfig(seed=3, conformal="split"))


@pytest.fixture(scope="module")
def crossed():
    return fit_head(toy_rows(600, 0), MANIFEST, CROSSED)


def test_refit_finds_the_linear_part(fitted):
    assert fitted.head.refit
    new = toy_rows(400, 1)
    said = fitted.head.intervals(new)
    truth = (new.features / new.table["n_atoms"].to_numpy()[:, None]) @ np.array([0.1, -0.05, 0, 0.02, 0, 0])
    assert np.sqrt(np.mean((said.refit - truth) ** 2)) < 0.01
    assert np.array_equal(said.centre, said.refit)


def test_the_scale_tells_wide_from_narrow(fitted):
    new = toy_rows(400, 2)
    oxygen = np.array([8 in e for e in new.table["elements"]])
    sigma = fitted.head.intervals(new).sigma
    assert fitted.head.scale.kind != "constant"
    ratio = np.median(sigma[oxygen]) / np.median(sigma[~oxygen])
    assert 2.0 < ratio < 8.0  # four in truth


def test_coverage_on_new_rows_is_nominal_on_average():
    """Exchangeable rows: the mean coverage over independent fits is nominal to its standard error.

    A row of a new composition is covered at least at the nominal level, and at most one composition's share above.
    """
    measured = []
    for seed in range(12):
        config = replace(PLAIN, fit_share=0.3, calibration_share=0.6, seed=seed, n_folds=2)
        head = fit_head(toy_rows(500, 100 + seed), MANIFEST, config).head
        new = toy_rows(500, 200 + seed)
        said, truth = head.intervals(new), residual_ev_per_atom(new)
        measured.append(((said.lower <= truth[:, None]) & (truth[:, None] <= said.upper)).mean(axis=0)[:3])
    spread = np.std(measured, axis=0, ddof=1) / np.sqrt(len(measured))
    assert np.all(np.abs(np.mean(measured, axis=0) - [0.68, 0.90, 0.95]) < 3 * spread + 0.005)


def test_saved_head_says_the_same(fitted, tmp_path):
    fitted.head.save(tmp_path / "head", "# a card")
    again = load_head(tmp_path / "head")
    rows = toy_rows(50, 5)
    one, two = fitted.head.intervals(rows), again.intervals(rows)
    for name in ("centre", "sigma", "lower", "upper", "extrapolation_grade"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert again.kept_rows.ids == fitted.head.kept_rows.ids
    assert np.array_equal(again.kept_rows.points, fitted.head.kept_rows.points)
    assert again.identity == fitted.head.identity
    assert again.levels == fitted.head.levels
    assert (tmp_path / "head" / "README.md").read_text() == "# a card"


def test_two_fits_write_the_same_bytes_and_order_does_not_matter(fitted, tmp_path):
    rows = toy_rows(900, 0)
    again = fit_head(rows, MANIFEST, FitConfig(seed=3, conformal="split")).head
    fitted.head.save(tmp_path / "a", "card")
    again.save(tmp_path / "b", "card")
    for name in ("head.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    order = np.random.default_rng(0).permutation(900)
    shuffled = FeatureRows(rows.table.iloc[order].reset_index(drop=True), rows.features[order])
    other = fit_head(shuffled, MANIFEST, FitConfig(seed=3, conformal="split")).head
    new = toy_rows(100, 9)
    assert np.allclose(other.intervals(new).half_widths, again.intervals(new).half_widths, rtol=1e-7)
    assert other.provenance["data_sha256"] == again.provenance["data_sha256"]


def test_splits_never_share_a_composition(fitted):
    formulas = fitted.rows.table["formula"].to_numpy()
    sets = [set(formulas[fitted.splits == s]) for s in ("fit", "calibration", "test")]
    assert not (sets[0] & sets[1])
    assert not (sets[0] & sets[2])
    assert not (sets[1] & sets[2])
    roles = fitted.head.roles(formulas)
    assert np.array_equal(np.where(roles == "unknown", "test", roles), fitted.splits)


def test_what_the_head_did_comes_before_what_the_models_training_did(fitted):
    formulas = fitted.rows.table["formula"].to_numpy()
    everything = composition_keys([*formulas, "NaCl"])
    roles = fitted.head.roles([*formulas, "NaCl", "KCl"], everything)
    wanted = np.where(fitted.splits == "test", "model_training", fitted.splits)
    assert set(wanted) == {"fit", "calibration", "model_training"}
    assert roles.tolist() == [*wanted, "model_training", "unseen"]
    both = replace(fitted.head, calibration_compositions=fitted.head.fit_compositions)
    assert set(both.roles(formulas[fitted.splits == "fit"], everything)) == {"fit"}


def test_what_is_left_out_of_a_fit():
    rows = toy_rows(300, 4)
    table = rows.table
    table.loc[0, "reason"] = "broken"
    table.loc[1, "energy_ev"] = np.nan
    table.loc[2, "energy_ev"] = table.loc[2, "energy_model_ev"] - 25.0 * table.loc[2, "n_atoms"]
    seen = composition_keys(table["formula"].iloc[10:20].tolist())
    kept, left_out = usable_rows(rows, seen)
    assert left_out["no label or not scored"] == 2
    assert left_out["suspect label"] == 1
    known = set(table["formula"].iloc[10:20])
    assert not known & set(kept.table["formula"])
    assert sum(left_out.values()) + len(kept.table) == 300


def test_a_refit_that_does_not_help_is_not_used():
    rows = toy_rows(300, 6)
    rng = np.random.default_rng(0)
    noise = rng.standard_t(3, 300) * 0.05
    rows.table["energy_ev"] = rows.table["energy_model_ev"] + noise * rows.table["n_atoms"]
    head = fit_head(rows, MANIFEST, FitConfig(conformal="split")).head
    assert not head.refit
    said = head.intervals(toy_rows(20, 7))
    assert np.array_equal(said.centre, np.zeros(20))


def test_cross_fit_has_not_seen_its_rows():
    """Duplicating every row inside its group must not make the left-out predictions better."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 30)), rng.normal(size=60)
    groups = np.array([f"g{i}" for i in range(60)])
    config = FitConfig(robust=False)
    once = cross_fit(x, y, np.ones(60), groups, config)
    twice = cross_fit(np.tile(x, (2, 1)), np.tile(y, 2), np.ones(120), np.tile(groups, 2), config)
    assert np.abs(y - once.mean).mean() > 0.6  # nothing can be learnt from noise
    assert np.abs(np.tile(y, 2) - twice.mean).mean() > 0.6


def test_balanced_weights():
    rows = toy_rows(200, 8)
    weights = row_weights(rows, FitConfig(balance=True))
    small = (rows.table["source"] == "small").to_numpy()
    assert weights[small].sum() == pytest.approx(weights[~small].sum())
    assert weights.mean() == pytest.approx(1.0)
    assert fit_head(rows, MANIFEST, replace(PLAIN, balance=True)).head.levels[0] == 0.68


@pytest.mark.parametrize(("n", "seed"), [(120, 0), (300, 1), (900, 2), (1800, 3)])
def test_a_level_needs_enough_calibration_compositions(n, seed):
    """K compositions reach a level only if K / (K + 1) >= level: 19 for 95 %, 99 for 99 %."""
    result = fit_head(toy_rows(n, seed), MANIFEST, PLAIN)
    n_compositions = len(set(result.rows.table["formula"][result.splits == "calibration"]))
    reachable = tuple(x for x in (0.68, 0.90, 0.95, 0.99) if n_compositions >= round(x / (1 - x), 6))
    assert result.head.levels.values == reachable


def test_too_few_rows_stop():
    with pytest.raises(HeadError, match="give more labelled structures"):
        fit_head(toy_rows(20, 0), MANIFEST)
    rows = toy_rows(300, 0)
    seen = composition_keys(rows.table["formula"].tolist())
    with pytest.raises(HeadError, match=r"300 left out \(composition in the .* \(--include-training\)"):
        fit_head(rows, MANIFEST, training_keys=seen)


def test_another_model_is_refused(fitted):
    fitted.head.check_fits("toy", "d" * 64, "Default", "readout")
    for wrong in (("x", "e" * 64, "Default", "readout"), ("toy", "d" * 64, "b", "readout")):
        with pytest.raises(HeadError, match="fitted for this model"):
            fitted.head.check_fits(*wrong)
    with pytest.raises(HeadError, match="descriptors"):
        fitted.head.check_fits("toy", "d" * 64, "Default", "descriptors")
    with pytest.raises(HeadError, match="calibrated for the levels"):
        fitted.head.intervals(toy_rows(5, 0)).at(0.5)


def test_unseen_elements_and_extrapolation_are_marked(fitted):
    rows = toy_rows(10, 11)
    rows.table["elements"] = [[92], *rows.table["elements"].tolist()[1:]]
    rows.table["counts"] = [[1], *rows.table["counts"].tolist()[1:]]
    features = rows.features.copy()
    features[1] *= 1e3
    said = fitted.head.intervals(FeatureRows(rows.table, features))
    assert said.unseen.tolist() == [True] + 9 * [False]
    assert said.extrapolation_grade[1] > 100
    assert np.isfinite(said.half_widths).all()


@pytest.mark.parametrize(
    ("elements", "wanted"),
    [
        ([8, 26, 9], "oxide"),
        ([9, 11, 16], "halide"),
        ([16, 30], "chalcogenide"),
        ([7, 31], "pnictide"),
        ([29, 30], "intermetallic"),
        ([14], "other"),
        ([1, 3], "other"),
        ([2], "other"),
    ],
)
def test_chemistry_class(elements, wanted):
    assert chemistry_class(elements) == wanted


def test_settings_are_kept(fitted):
    settings = fitted.head.provenance["settings"]
    assert settings["seed"] == 3
    assert FitConfig(**{**settings, "levels": tuple(settings["levels"])}) == FitConfig(
        seed=3, conformal="split"
    )


def test_folds_calibrate_with_every_row_that_fits(crossed):
    head, formulas = crossed.head, crossed.rows.table["formula"].to_numpy()
    assert set(crossed.splits) == {"fit", "test"}
    assert head.provenance["rows"]["calibration"] == 0
    assert (
        len(head.conformal.scores) == head.provenance["rows"]["fit"] == int((crossed.splits == "fit").sum())
    )
    assert len(head.folds) == 3
    assert head.calibration_compositions.size == 0
    assert np.array_equal(np.where(head.roles(formulas) == "unknown", "test", "fit"), crossed.splits)
    apart = fit_head(toy_rows(600, 0), MANIFEST, replace(PLAIN, seed=3))
    assert np.array_equal(apart.splits == "test", crossed.splits == "test")


POOLED = SourceStudy("pooled", None, ())


def test_a_score_comes_from_the_head_that_left_its_row_out(crossed):
    """By hand: the folds of the compositions, and what the fold's head says of its rows."""
    fit = crossed.rows.take(crossed.splits == "fit")
    folds = group_folds(fit.table["formula"].to_numpy(str), 3, 3 + 7919)
    design = head_inputs(fit, composition=True)
    for k, head in enumerate(crossed.head.folds):
        held = folds == k
        parts = _Parts(CROSSED, SourceStudy("pooled", None, ()), TrainedRows.of(fit, None, CROSSED))
        unseen = parts.fit(fit.take(~held), fit.table["formula"].to_numpy(str)[~held])
        np.testing.assert_allclose(
            head.pops.ridge.coefficients, unseen[0].ridge.coefficients, rtol=1e-8, atol=1e-12
        )
        centre, sigma = head.centre_and_sigma(design.take(held))
        scores = np.abs(residual_ev_per_atom(fit)[held] - centre) / sigma
        layer = crossed.head.conformal
        np.testing.assert_allclose(np.sort(scores), layer.scores[layer.folds == k], rtol=1e-9)


def test_a_head_with_folds_is_saved_whole(crossed, tmp_path):
    crossed.head.save(tmp_path / "head", "card")
    again, rows = load_head(tmp_path / "head"), toy_rows(40, 5)
    one, two = crossed.head.intervals(rows), again.intervals(rows)
    for name in ("lower", "upper", "fold_centre", "fold_sigma"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    truth = residual_ev_per_atom(rows)
    least = again.min_covering_level(two, truth)
    for j, level in enumerate(again.levels):
        assert np.array_equal((two.lower[:, j] <= truth) & (truth <= two.upper[:, j]), least < level - 1e-9)


def test_cross_conformal_coverage_on_new_rows(crossed):
    """More than the guaranteed 1 - 2α, and near the level: folds that know two thirds of the rows err a little more."""
    measured = []
    heads = [
        crossed.head,
        fit_head(toy_rows(600, 300), MANIFEST, replace(CROSSED, seed=0, robust=False)).head,
    ]
    for seed, head in enumerate(heads):
        new = toy_rows(2000, 400 + seed)
        said, truth = head.intervals(new), residual_ev_per_atom(new)
        measured.append(((said.lower <= truth[:, None]) & (truth[:, None] <= said.upper)).mean(axis=0)[:3])
    mean, levels = np.mean(measured, axis=0), np.array([0.68, 0.90, 0.95])
    assert np.all(mean > 1 - 2 * (1 - levels))
    # one fit's coverage given its 510 scores has a standard deviation of about sqrt(level (1 - level) / 170 clusters)
    assert np.all(np.abs(mean - levels) < 3 * np.sqrt(levels * (1 - levels) / 170 / 2) + 0.02)


def test_signed_bounds_by_groups():
    """About 720 calibration rows: 430 of metals, 290 oxides, 260 and 390 of two sizes; ten metals with 72 each."""
    config = replace(
        PLAIN,
        fit_share=0.2,
        calibration_share=0.6,
        seed=3,
        signed=True,
        groups="all",
        levels=(0.68, 0.9, 0.95),
    )
    head = fit_head(toy_rows(1200, 12), MANIFEST, config).head
    assert head.conformal.signed
    assert set(head.conformal.cells) == {"intermetallic", "oxide", "Z8"}
    said = head.intervals(toy_rows(50, 13))
    assert not np.allclose(said.upper - said.centre[:, None], said.centre[:, None] - said.lower)


def test_unknown_choices_are_refused():
    with pytest.raises(HeadError, match="conformal is 'jackknife', which is none of cross, split"):
        FitConfig(conformal="jackknife")
    with pytest.raises(HeadError, match="groups is 'size', which is none of none, chemistry, elements, all"):
        FitConfig(groups="size")


def test_a_head_knows_its_name_and_digest(fitted, tmp_path):
    """A head in memory has no digest; one that was read has that of its folder, under the folder's name."""
    assert (fitted.head.name, fitted.head.digest) == ("in memory", "")
    folder = fitted.head.save(tmp_path / "alloys", "# a card")
    again = load_head(folder)
    assert again.name == "alloys"
    assert again.digest == json.loads((folder / "config.json").read_text())["digest"]
    model = fitted.head.identity
    assert repr(again) == (
        f"CalibratedHead('alloys' for {model.model} {model.model_digest[:12]}, levels {again.levels}, "
        f"scale {again.scale.kind})"
    )
    parts = (again, again.pops, again.scale, again.conformal, again.intervals(toy_rows(20, 1)))
    assert all("\n" not in repr(part) and len(repr(part)) < 120 for part in parts)


def test_kept_rows_know_how_heads_that_left_them_out_did(crossed):
    head, rows, fit = crossed.head, crossed.rows, crossed.splits == "fit"
    kept = head.kept_rows
    assert list(kept.ids) == rows.table["id"].tolist()
    np.testing.assert_allclose(kept.error_ev_per_atom, residual_ev_per_atom(rows), rtol=1e-5)
    layer = head.conformal
    for level in layer.levels:  # of each row the one head that has not seen it
        inside = (kept.covered_above_level[fit] < level).sum()
        assert inside == pytest.approx((layer.scores <= layer.half_width(level)).sum(), abs=1)
    said, error = head.intervals(rows.take(~fit)), residual_ev_per_atom(rows)[~fit]
    lower, upper = said.at(0.9)
    inside = (lower <= error) & (error <= upper)
    assert (kept.covered_above_level[~fit] <= 0.9).tolist() == inside.tolist()
    np.testing.assert_allclose(kept.sigma_ev_per_atom[~fit], said.sigma, rtol=1e-6)


def test_rows_that_every_head_has_seen_say_nothing_of_bounds(fitted):
    kept = fitted.head.kept_rows
    assert np.isnan(kept.sigma_ev_per_atom).tolist() == (fitted.splits == "fit").tolist()
    assert np.isnan(kept.covered_above_level).tolist() == (fitted.splits == "fit").tolist()
    few = replace(PLAIN, seed=3, kept_rows=0)
    assert fit_head(toy_rows(200, 0), MANIFEST, few).head.kept_rows is None
