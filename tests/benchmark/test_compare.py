"""The comparison: its numbers by hand, its splits, and that it can be killed at any time."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scoringrules
from scipy.stats import spearmanr

from mace_bounds import FeatureStore, FitConfig
from mace_bounds._io import locked
from mace_bounds.benchmark import BASELINES, CompareConfig, compare
from mace_bounds.benchmark.folder import against_product
from mace_bounds.benchmark.metrics import (
    MIN_STRUCTURES_OF_WORST,
    RATIO,
    flag_table,
    group_table,
    method_table,
)
from mace_bounds.benchmark.splits import make_splits
from mace_bounds.calibration import fit_head
from mace_bounds.errors import HeadError, StoreError
from mace_bounds.structures import composition_key, composition_keys, compositions_in

CONFIG = FitConfig(fit_share=0.4, calibration_share=0.3, conformal="cross", n_folds=2)
TABLES = (
    "compare.csv",
    "splits.csv",
    "groups.csv",
    "flags.csv",
    "compare.json",
    "index.html",
    "settings.json",
)


QUICK = replace(CONFIG, conformal="split")


def run(store, model, out, fit=QUICK, *, test_keys=None, progress=None, **settings):
    config = CompareConfig(fit=fit, include_training=True, **settings)
    return compare(store, out, config, model=model, test_keys=test_keys, progress=progress)


def splits_of(table, n_splits=0, system_folds=0, drop_subsystems=False):
    """Splits of a table with the settings of these tests."""
    return make_splits(
        table,
        CompareConfig(
            n_splits=n_splits, system_folds=system_folds, drop_subsystems=drop_subsystems, fit=CONFIG
        ),
    )


@pytest.fixture(scope="module")
def compared(tiny_store, tiny_model_folder, tmp_path_factory):
    """Every method on two composition splits and two folds of chemical systems; the product with its own layer."""
    out = tmp_path_factory.mktemp("compare") / "out"
    return run(tiny_store, tiny_model_folder, out, CONFIG, n_splits=2, system_folds=2)


def split_rows(store, seed=0):
    """Rows of a composition split by the hashes that DESIGN and the docstrings promise, and what is known of them."""
    rows = FeatureStore(store).read()
    split = splits_of(rows.table, seed + 1)[seed]
    table = rows.table
    error = ((table["energy_ev"] - table["energy_model_ev"]) / table["n_atoms"]).to_numpy()
    return rows, split, error


def split_head(store, rows, split):
    """Fit the product with the conformal layer that every method gets."""
    config = replace(split.config, conformal="split")
    return fit_head(rows.take(split.fit | split.calibration), FeatureStore(store).manifest, config).head


def quantile_by_hand(scores, groups, level):
    """Smallest score such that so many of the rows, and of one more group of mean size, are not above it."""
    ordered = np.sort(scores)
    needed = level * (len(scores) + len(scores) / len(set(groups)))
    place = int(np.ceil(needed - 1e-9)) - 1
    return ordered[place] if place < len(ordered) else np.inf


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
    nll = scoringrules.logs_normal(r, 0.0, one_sigma)
    assert row["nll"] == pytest.approx(np.mean(nll), rel=1e-9)
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


def record(split, source_hits):
    """Record of a split with given hits of 95 % intervals: {source: (n, hits)}."""
    groups = {"source": {k: [n, h, 10.0 * n, 20.0 * n] for k, (n, h) in source_hits.items()}}
    n, h = np.sum(list(source_hits.values()), axis=0)
    groups |= {"all": {"all": [int(n), float(h), 10.0 * n, 20.0 * n]}}
    groups |= {"flag": {"any": [10, 4.0, 100.0, 200.0]}}
    metrics = {"coverage_95": h / n, "interval_score_95_mev_per_atom": 20.0}
    found = {"metrics": metrics, "groups": groups, "n_bytes": 8, "reason": None}
    return {"split": split, "kind": "composition", "methods": {"constant": found}}


def test_the_worst_group_needs_enough_different_structures():
    records = [
        record("a", {"big": (100, 96), "small": (50, 10)}),
        record("b", {"big": (100, 90), "small": (50, 10)}),
    ]
    distinct = {
        ("composition", "source", "big"): MIN_STRUCTURES_OF_WORST,
        ("composition", "source", "small"): 99,
    }
    groups = group_table(records, distinct, [0.95])
    assert groups.set_index(["by", "group"]).loc[("source", "big"), "coverage_95"] == pytest.approx(0.93)
    assert groups.set_index(["by", "group"]).loc[("source", "small"), "coverage_95"] == pytest.approx(0.2)
    splits = pd.DataFrame(
        {
            "split": ["a", "b"],
            "kind": "composition",
            "method": "constant",
            "n_test": 150,
            "n_bytes": 8,
            "reason": None,
        }
        | {"interval_score_ratio": [1.0, 1.0]}
    )
    table = method_table(splits, groups)
    assert (table.loc[0, "worst_source"], table.loc[0, "worst_source_structures"]) == (
        "big",
        MIN_STRUCTURES_OF_WORST,
    )


def test_flags_are_judged_by_the_misses_they_hold():
    groups = group_table([record("a", {"one": (100, 90)})], {}, [0.95])
    row = flag_table(groups).iloc[0]
    assert row["share_flagged"] == pytest.approx(0.1)  # 10 of 100, of which 4 are hit: 6 of the 10 misses
    assert row["share_of_misses_flagged"] == pytest.approx(0.6)
    assert row["coverage_95_flagged"] == pytest.approx(0.4)
    assert row["coverage_95_unflagged"] == pytest.approx(86 / 90)


def test_no_composition_and_no_chemical_system_straddles_a_split(tiny_store):
    table = FeatureStore(tiny_store).read().table
    splits = splits_of(table, 3, 4)
    assert [split.name for split in splits[:3]] == [f"composition-{seed:04d}" for seed in range(3)]
    tested = np.zeros(len(table), dtype=int)
    for split in splits:
        new = "formula" if split.kind == "composition" else "chemical_system"
        used = set(table[new][split.fit | split.calibration])
        assert not used & set(table[new][split.test])
        assert not set(table["formula"][split.fit]) & set(table["formula"][split.calibration])
        assert split.fit.any()
        assert split.calibration.any()
        tested += split.test if split.kind == "system" else 0
    assert (tested == 1).all()


def test_the_product_is_fitted_on_the_rows_of_the_split(tiny_store):
    rows = FeatureStore(tiny_store).read()
    for split in splits_of(rows.table, 1, 3, drop_subsystems=True)[:2]:
        head = split_head(tiny_store, rows, split)
        for mask, keys in (
            (split.fit, head.fit_compositions),
            (split.calibration, head.calibration_compositions),
        ):
            assert np.array_equal(composition_keys(rows.table["formula"][mask].tolist()), keys)


def test_subsystems_are_left_out_on_request(tiny_store):
    table = FeatureStore(tiny_store).read().table
    elements = [set(system.split("-")) for system in table["chemical_system"]]
    for split in splits_of(table, 0, 6, drop_subsystems=True):
        tested = [elements[i] for i in np.flatnonzero(split.test)]
        used = [elements[i] for i in np.flatnonzero(split.fit | split.calibration)]
        assert not any(one <= other for one in used for other in tested)
        assert used


def test_few_systems_are_left_out_one_at_a_time():
    table = pd.DataFrame(
        {"formula": ["Li", "LiO", "Li2O", "Na"], "chemical_system": ["Li", "Li-O", "Li-O", "Na"]}
    )
    splits = splits_of(table, 0, 10)
    assert [table["chemical_system"][split.test].unique().tolist() for split in splits] == [
        ["Li"],
        ["Li-O"],
        ["Na"],
    ]


def test_the_test_rows_can_be_restricted_to_compositions(tiny_store, tiny_model_folder, tmp_path):
    table = FeatureStore(tiny_store).read().table
    keys = composition_keys([f for f in table["formula"] if int(composition_key(f)) % 2])
    options = {"n_splits": 1, "methods": ("llpr",)}
    some = run(tiny_store, tiny_model_folder, tmp_path / "some", test_keys=keys, **options)
    _, split, _ = split_rows(tiny_store)
    wanted = compositions_in(table["formula"].tolist(), keys)
    assert some.splits["n_test"].unique().tolist() == [(split.test & wanted).sum()]
    assert some.splits["n_fit"].unique().tolist() == [split.fit.sum()]
    with pytest.raises(HeadError, match="leave none to test on"):
        run(
            tiny_store,
            tiny_model_folder,
            tmp_path / "none",
            test_keys=np.array([1], dtype=np.uint64),
            **options,
        )


def test_a_comparison_that_is_stopped_goes_on_and_ends_with_the_same_bytes(
    tiny_store, tiny_model_folder, tmp_path
):
    options = {"n_splits": 0, "system_folds": 2, "methods": ("mace_bounds", "llpr")}
    run(tiny_store, tiny_model_folder, tmp_path / "whole", **options)

    def stop(done, _):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_store, tiny_model_folder, tmp_path / "halves", progress=stop, **options)
    finished = tmp_path / "halves" / "splits" / "system-00-of-02.json"
    before = finished.stat().st_mtime_ns
    run(tiny_store, tiny_model_folder, tmp_path / "halves", **options)
    assert finished.stat().st_mtime_ns == before
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert {str(f) for f in files} >= {
        *TABLES,
        "seconds.csv",
        "plots/system_groups.svg",
        "plots/system_groups.png",
    }
    for file in files:
        if "seconds" not in file.name:
            assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "halves" / file).read_bytes(), file


def test_a_folder_is_only_gone_on_with_if_everything_but_the_number_of_splits_agrees(
    compared, tiny_store, tiny_model_folder, tmp_path
):
    shutil.copytree(compared.folder, tmp_path / "out")
    fewer = run(tiny_store, tiny_model_folder, tmp_path / "out", CONFIG, n_splits=1)
    assert fewer.table["n_splits"].unique().tolist() == [1]
    with pytest.raises(StoreError, match="begun with other methods"):
        run(tiny_store, tiny_model_folder, tmp_path / "out", CONFIG, n_splits=2, methods=("llpr",))


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
    page = (compared.folder / "index.html").read_text()
    for plot in ("interval_score", "coverage", "groups", "sharpness"):
        assert f"plots/composition_{plot}.svg" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("psychic",)}, "there is no method psychic; choose from .*llpr"),
        ({"methods": ("model_spread",)}, "there is no method model_spread"),
        ({"energy_columns": ("a",)}, "belong together"),
        ({"n_splits": 0}, "at least one split"),
        ({"n_splits": 0, "system_folds": 1}, "no folds or two and more"),
    ],
)
def test_unusable_requests_are_refused(options, message, tiny_store, tiny_model_folder, tmp_path):
    with pytest.raises(HeadError, match=message):
        run(tiny_store, tiny_model_folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_spread_of_models_takes_part_where_others_are_given(tiny_store, tiny_model_folder, tmp_path):
    """Two other models, whose energies come in a table; structures that it lacks are left out and counted."""
    table = FeatureStore(tiny_store).read().table
    away = table["energy_ev"] - table["energy_model_ev"]
    given = pd.DataFrame({"id": table["id"], "up": table["energy_model_ev"] + away.abs()})
    given["down"] = table["energy_model_ev"] - away.abs()
    given.iloc[5:].to_csv(tmp_path / "others.csv", index=False)
    report = run(
        tiny_store,
        tiny_model_folder,
        tmp_path / "out",
        n_splits=1,
        methods=("model_spread",),
        predictions=tmp_path / "others.csv",
        energy_columns=("up", "down"),
    )
    assert report.left_out["without an energy of every other model"] == 5
    assert report.splits["reason"].isna().all()
    (row,) = report.table[report.table["method"] == "model_spread"].to_dict("records")
    assert row["mean_width_95_mev_per_atom_mean"] > 0
    assert 0.7 < row["coverage_90_mean"] <= 1.0


def test_shares_must_leave_rows_to_test_on():
    with pytest.raises(HeadError, match="do not leave rows to fit, calibrate and test on"):
        CompareConfig(fit=FitConfig(fit_share=0.7, calibration_share=0.3))


def test_one_comparison_at_a_time(tiny_store, tiny_model_folder, compared, tmp_path):
    shutil.copytree(compared.folder, tmp_path / "out")
    with locked(tmp_path / "out"), pytest.raises(StoreError, match="another run is writing"):
        run(tiny_store, tiny_model_folder, tmp_path / "out", CONFIG, n_splits=1)


def test_another_folder_is_not_touched(tiny_store, tiny_model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"it holds notes\.txt"):
        run(tiny_store, tiny_model_folder, tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        run(tiny_store, tiny_model_folder, tmp_path / "notes.txt")


def test_what_may_be_chance_is_not_distinguishable():
    """The corrected t-test by hand: n = 4, 20 of 80 rows tested, so that |mean| > 3.182 sd sqrt(1/4 + 1/3) counts."""
    product = np.array([0.8, 0.9, 1.0, 0.9])
    wobble = np.array([-1.0, 1.0, -1.0, 1.0]) * np.sqrt(3 / 4)  # sd 1
    limit = 3.182446 * np.sqrt(1 / 4 + 20 / 60)
    scores = {
        "mace_bounds": product,
        "llpr": product - 0.01 * (1.01 * limit + wobble),
        "quantile": product - 0.01 * (0.99 * limit + wobble),
        "constant": product + 0.1,
        "committee": np.array([np.nan, 0.9, np.nan, np.nan]),
    }
    rows = [(f"s{i}", method, x) for method, values in scores.items() for i, x in enumerate(values)]
    table = pd.DataFrame(rows, columns=["split", "method", RATIO]).assign(
        n_fit=40, n_calibration=20, n_test=20
    )
    assert against_product(table) == {
        "llpr": "better",
        "quantile": "not distinguishable",
        "constant": "worse",
    }
    assert against_product(table[table["split"] == "s0"]) == {}


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
