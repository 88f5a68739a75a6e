"""The table of rows that no structure stands behind."""

from __future__ import annotations

import pandas as pd


def toy_table(residual, n_atoms, elements, **columns) -> pd.DataFrame:
    """Labelled rows of given residual (n,) in eV/atom, about a model that says -3 eV/atom; one atom of each element.

    ``columns`` holds at least source, formula and structure_hash.
    """
    n = len(n_atoms)
    return pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(n)],
            "chemical_system": "A-B",
            "n_atoms": n_atoms,
            "run_type": None,
            "flags": [[] for _ in range(n)],
            "reason": None,
            "label_reason": None,
            "energy_ev": (residual - 3.0) * n_atoms,
            "label_kind": "made up",
            "energy_model_ev": -3.0 * n_atoms,
            "fixed_energy_ev": 0.0,
            "volume_a3": float("nan"),
            "space_group": None,
            "elements": elements,
            "counts": [[1] * len(row) for row in elements],
            **columns,
        }
    )
