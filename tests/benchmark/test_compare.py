"""The numbers of a comparison of all methods, by hand, and its files."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, spearmanr

from helpers.comparisons import CONFIG, quantile_by_hand, run, split_head, split_rows
from mace_bounds import FeatureStore
from mace_bounds._io import locked
from mace_bounds.benchmark import BASELINES
from mace_bounds.calibration import fit_head
from mace_bounds.errors import StoreError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compared(tiny_store, tiny_model_folder, tmp_path_factory):
    """Every method on two composition splits and two folds of chemical systems; the product with its own layer."""
    out = tmp_path_factory.mktemp("compare") / "out"
    return run(tiny_store, tiny_model_folder, out, CONFIG, n_splits=2, system_folds=2)


@pytest.mark.parametrize("method", ["mace_bounds_split", "constant"])
def test_numbers_of_a_split_are_those_made_by_hand(method, compared, tiny_store):
    rows, split, error = split_rows(tiny_store)
    said = split_head(tiny_store, rows, split).intervals(rows)
    sigma = said.sigma if method == "mace_bounds_split" else np.ones(len(error))
    deviation = error - said.centre
    formulas = rows.table["formula"].to_numpy()[split.calibration]
    scores = (np.abs(deviation) / sigma)[split.calibration]
    half = {
        level: quantile_by_hand(scores, formulas, level) * sigma[split.test] for level in (0.68, 0.9, 0.95)
    }
    r = deviation[split.test]
    row = compared.splits.set_index(["split", "method"]).loc[("composition-0000", method)]
    assert row["n_test"] == split.test.sum() == len(r) > 30
    for level, width in half.items():
        assert row[f"coverage_{100 * level:g}"] == pytest.approx(np.mean(np.abs(r) <= width), abs=1e-12)
    fine = 2 / 0.05 * np.maximum(np.abs(r) - half[0.95], 0)
    assert row["interval_score_95_mev_per_atom"] == pytest.approx(
        1e3 * np.mean(2 * half[0.95] + fine), rel=1e-9
    )
    assert row["mean_width_95_mev_per_atom"] == pytest.approx(2e3 * half[0.95].mean(), rel=1e-9)
    assert row["median_width_95_mev_per_atom"] == pytest.approx(2e3 * np.median(half[0.95]), rel=1e-9)
    assert row["model_mae_mev_per_atom"] == pytest.approx(1e3 * np.abs(error[split.test]).mean(), rel=1e-9)
    assert row["centre_mae_mev_per_atom"] == pytest.approx(1e3 * np.abs(r).mean(), rel=1e-9)
    one_sigma = quantile_by_hand(scores, formulas, 0.6826894921370859) * sigma[split.test]
    assert row["nll"] == pytest.approx(-np.mean(norm.logpdf(r, 0.0, one_sigma)), rel=1e-9)
    if method == "mace_bounds_split" and np.ptp(sigma) > 0:
        assert row["spearman"] == pytest.approx(spearmanr(np.abs(r), sigma[split.test]).statistic, abs=1e-9)


def test_the_product_as_it_ships_uses_its_own_intervals_and_all_labelled_rows(compared, tiny_store):
    rows, split, error = split_rows(tiny_store)
    used = rows.take(split.fit | split.calibration)
    said = fit_head(used, FeatureStore(tiny_store).manifest, CONFIG).head.intervals(rows.take(split.test))
    lower, upper = said.at(0.95)
    inside = (lower <= error[split.test]) & (error[split.test] <= upper)
    row = compared.splits.set_index(["split", "method"]).loc[("composition-0000", "mace_bounds")]
    assert row["coverage_95"] == pytest.approx(inside.mean(), abs=1e-12)
    assert row["mean_width_95_mev_per_atom"] == pytest.approx(1e3 * np.mean(upper - lower), rel=1e-9)


def test_crps_is_that_of_the_conformal_quantiles(compared, tiny_store):
    rows, split, error = split_rows(tiny_store)
    deviation = error - split_head(tiny_store, rows, split).intervals(rows).centre
    scores = np.abs(deviation[split.calibration])
    formulas = rows.table["formula"].to_numpy()[split.calibration]
    p = (np.arange(100) + 0.5) / 100
    spread = np.array([quantile_by_hand(scores, formulas, round(abs(2 * x - 1), 2)) for x in p])
    spread[np.isinf(spread)] = spread[np.isfinite(spread)].max()
    pinball = [
        np.mean(np.maximum(x * (deviation[split.test] - q), (x - 1) * (deviation[split.test] - q)))
        for x, q in zip(p, np.sign(p - 0.5) * spread, strict=True)
    ]
    row = compared.splits.set_index(["split", "method"]).loc[("composition-0000", "constant")]
    assert row["crps_mev_per_atom"] == pytest.approx(2e3 * np.mean(pinball), rel=1e-9)


def test_every_baseline_and_every_pops_variant_takes_part(compared):
    methods = set(compared.table["method"])
    assert set(BASELINES) <= methods
    assert {
        "mace_bounds",
        "mace_bounds_split",
        "pops_hypercube",
        "pops_ensemble",
        "pops_support",
        "scale_log_ridge",
    } <= methods
    assert set(compared.table["kind"]) == {"composition", "system"}
    assert compared.splits["reason"].isna().all()
    assert (compared.table["n_bytes"] > 0).all()
    assert (compared.seconds["fit_seconds_mean"] > 0).all()


def test_the_table_is_mean_and_spread_over_splits_and_ratios_are_paired(compared):
    splits = compared.splits[compared.splits["kind"] == "composition"].set_index(["method", "split"])
    table = compared.table[compared.table["kind"] == "composition"].set_index("method")
    score = "interval_score_95_mev_per_atom"
    for method in ("mace_bounds", "llpr", "committee"):
        mine, constant = (splits.loc[name][score].to_numpy() for name in (method, "constant"))
        assert table.loc[method, "interval_score_ratio_mean"] == pytest.approx((mine / constant).mean())
        assert table.loc[method, f"{score}_std"] == pytest.approx(np.std(mine, ddof=1))
    assert table.loc["constant", "interval_score_ratio_mean"] == 1.0
    assert table["interval_score_ratio_mean"].is_monotonic_increasing


def test_groups_are_pooled_over_splits(compared, tiny_store):
    groups = compared.groups.set_index(["kind", "method", "by", "group"]).sort_index()
    splits = compared.splits[(compared.splits["kind"] == "system") & (compared.splits["method"] == "llpr")]
    whole = groups.loc[("system", "llpr", "all", "all")]
    rows = FeatureStore(tiny_store).read().table
    assert whole["n_tested"] == whole["n_structures"] == len(rows) == splits["n_test"].sum()
    assert whole["coverage_95"] == pytest.approx(np.average(splits["coverage_95"], weights=splits["n_test"]))
    oxides = groups.loc[("system", "llpr", "element", "O")]
    assert oxides["n_structures"] == rows["chemical_system"].str.split("-").map(lambda e: "O" in e).sum()
    per_source = groups.loc[("system", "llpr", "source")]
    assert set(per_source.index) == {"alpha", "beta"}
    mean = np.average(per_source["coverage_95"], weights=per_source["n_tested"])
    assert mean == pytest.approx(whole["coverage_95"])


def test_json_and_csv_hold_the_same_table(compared):
    full = json.loads((compared.folder / "compare.json").read_text())
    csv = pd.read_csv(compared.folder / "compare.csv")
    assert (
        [row["method"] for row in full["compare"]]
        == csv["method"].tolist()
        == compared.table["method"].tolist()
    )
    column = "interval_score_ratio_mean"
    np.testing.assert_allclose([row[column] for row in full["compare"]], csv[column], rtol=1e-12)
    assert "seconds" not in (compared.folder / "compare.json").read_text()


def test_plots_are_drawn_where_a_finished_comparison_is_run_again_with_them(
    compared, tiny_store, tiny_model_folder, tmp_path
):
    assert not (compared.folder / "plots").exists()
    out = tmp_path / "out"
    shutil.copytree(compared.folder, out)
    began = {path: path.stat().st_mtime_ns for path in (out / "splits").iterdir()}
    run(tiny_store, tiny_model_folder, out, CONFIG, n_splits=2, plots=True)
    assert {path: path.stat().st_mtime_ns for path in (out / "splits").iterdir()} == began
    page = (out / "index.html").read_text()
    for plot in ("interval_score", "coverage", "groups", "sharpness", "flags"):
        assert f"plots/composition_{plot}.svg" in page
        assert (out / "plots" / f"composition_{plot}.png").read_bytes().startswith(b"\x89PNG")
        drawn = (out / "plots" / f"composition_{plot}.svg").read_text()
        assert "<svg" in drawn


def test_one_comparison_at_a_time(tiny_store, tiny_model_folder, compared, tmp_path):
    shutil.copytree(compared.folder, tmp_path / "out")
    with locked(tmp_path / "out"), pytest.raises(StoreError, match="another run is writing"):
        run(tiny_store, tiny_model_folder, tmp_path / "out", CONFIG, n_splits=1)


def test_the_page_marks_the_product_and_keeps_its_variants_apart(compared):
    page = (compared.folder / "index.html").read_text()
    main, variants = page.split("<details>", 1)
    assert re.findall(r'<tr class="own"><td><i[^>]*></i>([^<]*)</td>', main) == [
        *(label for label in ("mace-bounds", "mace-bounds, split conformal") if f"</i>{label}</td>" in main)
    ]
    assert "</i>mace-bounds</td>" in main
    assert "scale kernel" not in main
    assert "</i>scale kernel</td>" in variants
    assert "could be chance" in page
    for link in re.findall(r'<a href="([^"]*)"', page):
        assert (compared.folder / link).is_file()
