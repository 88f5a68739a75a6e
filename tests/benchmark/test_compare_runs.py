"""Comparisons that are stopped, refused, or given more energies."""

import pandas as pd
import pytest

from helpers.comparisons import run
from mace_bounds import FeatureStore, FitConfig
from mace_bounds.benchmark import CompareConfig
from mace_bounds.errors import HeadError, StoreError

TABLES = (
    "compare.csv",
    "splits.csv",
    "groups.csv",
    "flags.csv",
    "compare.json",
    "index.html",
    "settings.json",
)


def test_a_comparison_that_is_stopped_goes_on_and_ends_with_the_same_bytes(
    tiny_store, tiny_model_folder, tmp_path
):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    options = {"n_splits": 2, "methods": ("llpr",)}  # tests/test_kills.py has one with plots
    run(tiny_store, tiny_model_folder, whole, **options)

    def stop(done, _):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_store, tiny_model_folder, halves, progress=stop, **options)
    finished = halves / "splits" / "composition-0000.json"
    before = finished.stat().st_mtime_ns
    run(tiny_store, tiny_model_folder, halves, **options)
    assert finished.stat().st_mtime_ns == before
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert {str(f) for f in files} >= {*TABLES, "seconds.csv"}
    for file in files:
        if "seconds" not in file.name:
            assert (whole / file).read_bytes() == (halves / file).read_bytes(), file

    # it is only gone on with if everything but the number of splits agrees
    fewer = run(tiny_store, tiny_model_folder, halves, n_splits=1, methods=("llpr",))
    assert fewer.table["n_splits"].unique().tolist() == [1]
    with pytest.raises(StoreError, match="begun with other methods"):
        run(tiny_store, tiny_model_folder, halves, n_splits=2)


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


def test_another_folder_is_not_touched(tiny_store, tiny_model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"it holds notes\.txt"):
        run(tiny_store, tiny_model_folder, tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        run(tiny_store, tiny_model_folder, tmp_path / "notes.txt")
