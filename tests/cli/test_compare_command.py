"""``compare``: what it prints, what it leaves behind, and what it refuses."""

import json

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def options(tiny_model_folder):
    shares = ["--fit-share", "0.4", "--calibration-share", "0.3"]
    return ["--model", str(tiny_model_folder), *shares, "--methods", "llpr, scale_pops", "--no-robust"]


def test_the_table_on_the_screen_is_the_one_in_the_folder_and_nothing_is_computed_again(
    run, options, tiny_store, tmp_path
):
    out = tmp_path / "out"
    line = (
        "compare",
        tiny_store,
        out,
        *options,
        "--n-splits",
        2,
        "--system-folds",
        2,
        "--no-plots",
    )  # 4 splits in all
    result = run(*line)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(out / "compare.csv")
    methods = {"llpr", "scale_pops", "constant"}
    assert set(table["method"]) == methods
    assert "New compositions, 2 splits" in result.stdout
    assert "New chemical systems, 2 splits" in result.stdout
    for row in table.to_dict("records"):
        shown = f"{row['interval_score_ratio_mean']:.3f} ± {row['interval_score_ratio_std']:.3f}"
        assert shown in result.stdout
        assert f"{100 * row['coverage_95_mean']:.1f}" in result.stdout
    assert "composition in the model's training" in result.stdout
    assert "4 of 4 splits" in result.stderr
    assert (out / "index.html").is_file()

    written = {p: p.stat().st_mtime_ns for p in (out / "splits").iterdir()}
    again = json.loads(run(*line, "--json").stdout)  # it stands alone
    assert {p: p.stat().st_mtime_ns for p in (out / "splits").iterdir()} == written
    assert [row["method"] for row in again["table"]] == table["method"].tolist()
    assert {row["method"] for row in again["seconds"]} == methods


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--methods", "oracle"), "there is no method oracle; choose from"),
        (
            ("--fit-share", "0.7", "--calibration-share", "0.3"),
            "do not leave rows to fit, calibrate and test on",
        ),
        (("--n-splits", "0"), "at least one split"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, told, run, tiny_store, tiny_model_folder, tmp_path):
    result = run("compare", tiny_store, tmp_path / "out", "--model", tiny_model_folder, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_store_is_one_sentence(run, tmp_path):
    result = run("compare", tmp_path, tmp_path / "out")
    assert result.exit_code == 2
    assert "is no feature store" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
