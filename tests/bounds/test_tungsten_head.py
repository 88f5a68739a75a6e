"""The head of tungsten that ships, and the notebook about it."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from helpers import notebooks
from mace_bounds import BoundsPredictor
from mace_bounds.bounds import find_head, load_head
from mace_bounds.features import ExtractSettings
from mace_bounds.propagation import Potential, elastic_constants
from mace_bounds.structures import read

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "tungsten.ipynb"
MVL_BCC = {"a": 3.1899, "energy": -12.9603, "C11": 522.5, "C12": 196.2, "C44": 141.1}
"""Å, eV/atom and GPa, PBE: Materials Virtual Lab, npj Comput. Mater. 6, 70 (2020); its frames were not fitted."""


@pytest.fixture(scope="module")
def predictor():
    return BoundsPredictor(head="tungsten-mini", settings=ExtractSettings(dtype="float64", device="cpu"))


def test_it_is_small_and_only_used_where_it_is_named():
    folder = find_head(None, "tungsten-mini")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    assert find_head("mini").name == "mini"


def test_bcc_at_the_lattice_constant_of_dft(predictor):
    """The reference of the head's energies is that of the Materials Virtual Lab."""
    bounds = predictor.predict(bulk("W", "bcc", a=MVL_BCC["a"])).iloc[0]
    assert bounds["energy_lower_ev"] < MVL_BCC["energy"] < bounds["energy_upper_ev"]
    assert bounds["energy_expected_ev"] == pytest.approx(MVL_BCC["energy"], abs=0.02)
    assert "-12.9603 eV/atom" in predictor.note


def test_a_frame_of_no_family_gets_what_held_for_families_left_out(predictor):
    """Its half-width is the multiple of the standard deviation that the head keeps; a family has its own quantiles."""
    cells = [bulk("W", "bcc", a=3.25), bulk("W", "fcc", a=4.05)]
    named = [cell.copy() for cell in cells]
    for cell in named:
        cell.info["source"] = "slice_sample"
    table, own = predictor.predict(cells), predictor.predict(named)
    theta = predictor.coefficients()
    a = np.column_stack([predictor.model.extract([r.crystal for r in read(cells)]).features, [1, 1]])
    factor = dict(zip(predictor.head.levels, predictor.head.material.left_out, strict=True))[0.95]
    half = (table["upper_mev_per_atom"] - table["lower_mev_per_atom"]) / 2
    std = theta.std(a) / theta.stretch
    assert half.to_numpy() == pytest.approx(1000 * factor * std, rel=1e-3)
    assert 1.0 < factor < 4.0
    assert all("unknown_family" in flags for flags in table["flags"])
    assert not any("unknown_family" in flags for flags in own["flags"])
    assert not any("in_training" in flags for flags in table["flags"])
    assert (own["upper_mev_per_atom"] < table["upper_mev_per_atom"]).all()


def test_the_level_that_holds_an_error_is_that_of_its_interval(predictor):
    """At the ends of every interval of an unknown family the covering level is the interval's own."""
    (record,) = read([bulk("W", "bcc", a=3.25)])
    rows = predictor.extract([record])
    found = predictor.head.intervals(rows)
    for k, level in enumerate(found.levels):
        for end in (found.lower[:, k], found.upper[:, k]):
            assert predictor.head.min_covering_level(found, end)[0] == pytest.approx(level, abs=1e-6)


def test_labels_of_another_reference_are_refused_with_the_remedy(predictor):
    """As those of FitSNAP's sets, in which bcc is at -8.9 eV/atom."""
    cell = bulk("W", "bcc", a=3.19)
    cell.info["REF_energy"] = -8.909
    row = predictor.predict([cell]).iloc[0]
    assert "4.0" in row["label_reason"]
    assert "above the head's energies" in row["label_reason"]
    assert "only differences of energies can be compared" in row["label_reason"]
    assert np.isnan(row["error_mev_per_atom"])
    cell.info["REF_energy"] = MVL_BCC["energy"]
    assert abs(predictor.predict([cell]).iloc[0]["error_mev_per_atom"]) < 200


def test_other_elements_are_refused(predictor):
    assert "for W alone, and the structure holds Cu" in predictor.predict(bulk("Cu")).iloc[0]["reason"]


def test_elastic_constants_of_dft_are_within_the_spread_of_draws(predictor):
    (record,) = read([bulk("W", "bcc", a=3.185)])
    potential = Potential.of(predictor.model, predictor.coefficients(), 400)
    found = {result.name: result for result in elastic_constants(record.crystal, potential)}
    for name in ("C11", "C12", "C44"):
        assert found[name].lower < MVL_BCC[name] < found[name].upper, name


def test_the_card_says_what_was_measured():
    about = load_head("tungsten-mini").provenance
    everything = next(row for row in about["families"] if row["family"] == "all")
    assert everything["n_test"] > 1500
    card = (find_head(None, "tungsten-mini") / "README.md").read_text()
    assert f"| {everything['mae_mev_per_atom']:.1f} | {everything['mae_forces_ev_per_a']:.3f} |" in card
    assert "Szlachta" in card


@pytest.mark.slow
def test_the_notebook_runs_from_a_clean_start(tmp_path):
    cells = notebooks.code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    committed = str([cell["outputs"] for cell in cells])
    assert re.search(r"(/home/|/root/|/tmp/|/Users/|site-packages)", committed) is None
    shown = notebooks.run(NOTEBOOK, tmp_path)
    assert shown.n_pictures == committed.count("image/png")
    text = "".join(shown.texts)
    assert "for W alone" in text
    assert text.count("inside, |error| / std") == 3
