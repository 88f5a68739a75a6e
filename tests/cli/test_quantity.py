"""A head bounds the quantity of its labels: every output says which, and labels of another are refused."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from mace_bounds import FitConfig, load_head
from mace_bounds.errors import HeadError
from mace_bounds.structures import TOTAL_ENERGY, parse_quantity

STRAIN = "strain energy (WIEN2k)"


@pytest.fixture(scope="module")
def strain(tiny_store, tiny_model_folder, run, tmp_path_factory):
    """A head whose labels are called strain energies, and what fit said."""
    head = tmp_path_factory.mktemp("quantity") / "strain"
    options = ["--fit-share", 0.35, "--calibration-share", 0.35, "--conformal", "split", "--no-ellipsoid"]
    fitted = run("fit", tiny_store, head, "--model", tiny_model_folder, *options, "--quantity", STRAIN)
    assert fitted.exit_code == 0, fitted.stderr
    return head, fitted


def test_the_head_its_card_and_the_screen_say_what_it_bounds(strain):
    head, fitted = strain
    assert load_head(head).identity.quantity == STRAIN
    assert STRAIN in fitted.stdout
    card = (head / "README.md").read_text()
    assert "- **Bounds of**: strain energy (WIEN2k)" in card
    assert "It bounds the **strain energy (WIEN2k)**." in card
    assert json.loads((head.parent / "strain.summary.json").read_text())["quantity"] == STRAIN


def test_the_list_of_models_marks_it(strain, run, monkeypatch):
    from mace_bounds.head import read_head_folder, write_head

    heads = strain[0].parent / "heads"
    tensors, config = read_head_folder(strain[0])
    config["identity"] |= {"model": "mini"}
    write_head(
        heads / "of-mini", tensors, {k: v for k, v in config.items() if k not in ("format", "digest")}, "#"
    )
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(heads))
    monkeypatch.setenv("COLUMNS", "240")  # wrapped cells would be read line by line
    listed = " ".join(run("models").stdout.split())
    assert f"of-mini (only of the {STRAIN}), mini, " in listed
    assert "mace-mpa-0-published" in listed  # which medium-mpa-0 uses


def test_labels_of_another_quantity_are_not_compared(strain, labelled_file, tiny_model_folder, run):
    options = ["--model", tiny_model_folder, "--head", strain[0]]
    scored = run("score", labelled_file, *options, "--format", "json")
    rows = json.loads(scored.stdout)
    assert {row["quantity"] for row in rows} == {STRAIN}
    assert {row["energy_dft_ev"] for row in rows} == {None}
    assert all(TOTAL_ENERGY in row["label_reason"] for row in rows)
    named = run("score", labelled_file, *options, "--quantity", STRAIN, "--format", "json")
    assert all(row["energy_dft_ev"] is not None for row in json.loads(named.stdout))
    table = run("score", labelled_file, *options)
    assert f"The bounds hold E_DFT, here the {STRAIN}" in " ".join(table.stdout.split())


def test_an_audit_refuses_labels_of_another_quantity(
    strain, tiny_fit, labelled_file, tiny_store, tiny_model_folder, run, tmp_path
):
    options = ["--model", tiny_model_folder, "--no-plots", "--head"]
    for source in (labelled_file, tiny_store):
        refused = run("audit", source, tmp_path / "a", *options, strain[0])
        assert refused.exit_code == 2
        assert f"count as {TOTAL_ENERGY}, and the head bounds another quantity ({STRAIN})" in refused.stderr
        assert not (tmp_path / "a").exists()
    refused = run("audit", tiny_store, tmp_path / "a", *options, tiny_fit.folder, "--quantity", STRAIN)
    assert refused.exit_code == 2
    made = run("audit", tiny_store, tmp_path / "a", *options, strain[0], "--quantity", STRAIN.upper())
    assert made.exit_code == 0, made.stderr
    assert f"Bounds of the {STRAIN}." in " ".join(made.stdout.split())
    assert f"bounds of the {STRAIN}" in (tmp_path / "a" / "report.html").read_text()
    assert set(pd.read_csv(tmp_path / "a" / "coverage.csv")["quantity"]) == {STRAIN}


def test_a_quantity_is_one_line_of_words():
    assert parse_quantity("UNCORRECTED pbe(+u)\ntotal energy") == TOTAL_ENERGY
    for text in ("", " \n", "x" * 121, "a\x1b[31m"):
        with pytest.raises(ValueError, match="quantity"):
            parse_quantity(text)
    with pytest.raises(HeadError, match="quantity"):
        FitConfig(quantity="")
