"""The hull in an audit: of a chemical system, and of nothing else."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from mace_bounds import AuditConfig, BoundsPredictor, audit, plot
from mace_bounds.auditing.folder import HULL, HULL_PHASES
from mace_bounds.bounds import HullSettings
from mace_bounds.columns import HULLS, names


def system(predictor):
    """Magnesium, aluminium and some structures of them, with labels near the model's energies."""
    crystals = {"Mg": bulk("Mg", "hcp", 3.2), "Al": bulk("Al", "fcc", 4.05)}
    for kind, a in (("cesiumchloride", 3.4), ("rocksalt", 5.6), ("zincblende", 6.0)):
        crystals[f"MgAl-{kind}"] = bulk("MgAl", kind, a)
    for n in (2, 3):
        part = bulk("Al", "fcc", 4.1) * (n, 2, 1)
        part.numbers[0] = 12
        crystals[f"part-{n}"] = part
    part = bulk("Mg", "hcp", 3.2) * (2, 1, 1)
    part.numbers[0] = 13
    crystals["part-hcp"] = part
    for name, atoms in crystals.items():
        atoms.info["id"] = name
    found = predictor.predict(list(crystals.values()))
    error = 0.08 * np.random.default_rng(0).standard_normal(len(crystals))
    for atoms, energy, off in zip(crystals.values(), found["energy_model_ev"], error, strict=True):
        atoms.info["REF_energy"] = float(energy) + float(off) * len(atoms)
    return list(crystals.values())


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
