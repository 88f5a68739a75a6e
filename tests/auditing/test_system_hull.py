"""The hull in an audit: of a chemical system, and of nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.entries.computed_entries import ComputedEntry

from helpers.systems import labelled, magnesium_aluminium, ternary
from mace_bounds import AuditConfig, BoundsPredictor, FitConfig, audit, load_model, plot
from mace_bounds.auditing.folder import HULL, HULL_PHASES
from mace_bounds.bounds import HullSettings
from mace_bounds.columns import HULLS, names
from mace_bounds.structures import read


def system(predictor):
    """Magnesium, aluminium and some structures of them, with labels near the model's energies."""
    crystals = magnesium_aluminium()
    found = predictor.predict(crystals)
    error = 0.08 * np.random.default_rng(0).standard_normal(len(crystals))
    return labelled(crystals, found["energy_model_ev"] + error * found["n_atoms"])


def test_a_chemical_system_shows_its_hull(tiny_model_folder, tiny_fit, tmp_path):
    out = tmp_path / "out"
    predictor = BoundsPredictor(tiny_model_folder, tiny_fit.folder)
    crystals = system(predictor)
    found = audit(crystals, out, model=tiny_model_folder, head=tiny_fit.folder)
    assert found.summary["hull"]["elements"] == ["Al", "Mg"]
    assert {HULL, HULL_PHASES, "plots/phase_diagram.png", "plots/hull_distances.svg"} <= set(
        found.summary["files"]
    )
    page = found.report.read_text(encoding="utf-8")
    assert "Convex hull of Al-Mg" in page
    assert "part-hcp" in page
    table = pd.read_csv(out / HULL)
    expected = predictor.hull(crystals, None, HullSettings()).table
    numbers = [name for name in names(HULLS) if expected[name].dtype.kind == "f"]
    np.testing.assert_allclose(table[numbers], expected[numbers], atol=1e-6)
    again = plot(out, formats=("png",), folder=tmp_path / "again")
    assert {"phase_diagram.png", "hull_distances.png"} <= {path.name for path in again}


@pytest.mark.parametrize("kept", [slice(1, None), slice(0, 3)])
def test_what_lacks_an_element_or_compounds_has_none(kept, tiny_model_folder, tiny_fit, tmp_path):
    found = audit(
        system(BoundsPredictor(tiny_model_folder, tiny_fit.folder))[kept],
        tmp_path / "out",
        model=tiny_model_folder,
        head=tiny_fit.folder,
        config=AuditConfig(plots=False),
    )
    assert found.summary["hull"] is None
    assert not (tmp_path / "out" / HULL).exists()
    assert "Convex hull" not in found.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("published", [False, True])
def test_a_cross_fitted_audit_shows_the_hull_by_the_heads_of_folds(published, tiny_model_folder, tmp_path):
    crystals = ternary()
    model = load_model(tiny_model_folder).extract([record.crystal for record in read(crystals)]).energy_ev
    size = np.array([len(atoms) for atoms in crystals])
    error = 0.05 * np.random.default_rng(0).standard_normal((2, len(crystals)))
    crystals = labelled(crystals, model + error[0] * size)
    config = AuditConfig(
        plots=False,
        cross_fit=True,
        level=0.68,
        fit=FitConfig(conformal="split", n_folds=2, robust=False, ellipsoid=False, groups="none"),
    )
    bounded = model
    if published:
        bounded = model + error[1] * size
        table = pd.DataFrame({"id": [atoms.info["id"] for atoms in crystals], "energy_ev": bounded})
        table[:-1].to_csv(tmp_path / "energies.csv", index=False)
        config = replace(config, predictions=tmp_path / "energies.csv", energy_column="energy_ev")
    found = audit(crystals, tmp_path / "out", model=tiny_model_folder, config=config)
    assert found.summary["hull"]["elements"] == ["Al", "Li", "Mg"]
    notes = " ".join(found.summary["hull"]["notes"])
    assert "taken as independent" in notes
    assert "Convex hull of Al-Li-Mg" in found.report.read_text(encoding="utf-8")
    hull = pd.read_csv(found.folder / HULL).set_index("id")
    bounds = pd.read_csv(found.folder / "bounds.csv").set_index("id")
    assert ("no published energy" in str(hull["reason"].get("ternary-159"))) == published
    labels = [
        ComputedEntry(atoms.get_chemical_formula(), atoms.info["REF_energy"], entry_id=atoms.info["id"])
        for atoms in crystals
        if hull["reason"].isna()[atoms.info["id"]]
    ]
    shaping = set(pd.read_csv(found.folder / HULL_PHASES)["id"])
    for name in ("ternary-010", "ternary-077"):
        others = [entry for entry in labels if entry.entry_id != name and entry.entry_id in shaping]
        atoms = next(atoms for atoms in crystals if atoms.info["id"] == name)
        entry = ComputedEntry(atoms.get_chemical_formula(), bounds["energy_expected_ev"][name])
        expected = PhaseDiagram(others).get_e_above_hull(entry, allow_negative=True)
        assert hull["e_above_hull_ev_per_atom"][name] == pytest.approx(expected, abs=1e-6)
    there = hull["reason"].isna()
    np.testing.assert_allclose(
        1000 * hull["std_energy_ev_per_atom"][there], bounds["std_mev_per_atom"][hull.index[there]], atol=1e-3
    )
