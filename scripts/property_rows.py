"""What ``property_study.py`` compares with DFT: curves of cells, and energy differences within a composition."""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mace_bounds._io import atomic
from mace_bounds.head import Coefficients, PopsConfig, array_chunks, fit_pops
from mace_bounds.propagation import (
    Potential,
    Rows,
    at_volumes,
    fit_equations_of_state,
)
from mace_bounds.propagation.eos import STRAINS
from mace_bounds.structures import Crystal

MAGNETIC = {"Cr", "Mn", "Fe", "Co", "Ni", "O"}
F_ELEMENTS = {
    "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu",
    "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
}  # fmt: skip


def crystal(row) -> Crystal:
    from ase.data import atomic_numbers

    cell = np.array(row["cell"], dtype=float)
    numbers = np.array([atomic_numbers[s] for s in row["symbols"]], dtype=np.int64)
    return Crystal(numbers, np.array(row["scaled_positions"], dtype=float) @ cell, cell)


def lines(path: Path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def all_electron(data: Path):
    """Equations of state that count: element, configuration, crystal, V0 (Å³/atom) and B0 (GPa)."""
    left_out = MAGNETIC | F_ELEMENTS
    for row in lines(data / "acwf" / "acwf_pbe.jsonl.gz"):
        wanted = row["fit"].get("ae_average")
        if row["element"] in left_out or not wanted or row["element"] in ("He", "Ne", "Ar", "Kr", "Xe", "Rn"):
            continue
        yield row, crystal(row), wanted["V0_a3"] / row["n_atoms"], wanted["B0_gpa"]


@dataclass
class Curve:
    """Features of a cell on volumes around the model's minimum, all per atom."""

    volumes: np.ndarray
    features: np.ndarray
    fixed: np.ndarray

    def state(self, theta):
        return fit_equations_of_state(self.volumes, Rows(self.features, self.fixed).energies_ev(theta))


def curve(cell: Crystal, model) -> Curve | None:
    """None where the model has no minimum."""
    potential, n, centre = Potential.frozen(model), len(cell.numbers), cell.volume
    for _ in range(8):
        volumes = centre * (1 + np.asarray(STRAINS))
        rows = potential.rows(at_volumes(cell, volumes))
        energies = rows.energies_ev(model.theta0_ev)
        found = float(fit_equations_of_state(volumes, energies[None]).volume_a3[0])
        if np.isfinite(found) and abs(found / centre - 1) < 0.015:
            return Curve(volumes / n, rows.features / n, rows.fixed_ev / n)
        centre = found if np.isfinite(found) else float(volumes[np.argmin(energies)])
        if not 0.5 < centre / cell.volume < 1.8:
            return None
    return None


def kept(path: Path, make):
    """An array file, made once."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    arrays = make()
    with atomic(path) as temporary, Path(temporary).open("wb") as file:
        np.savez_compressed(file, **arrays)
    return arrays


def curves(data: Path, out: Path, model):
    """Curves of all all-electron systems, element by element."""
    by_element: dict[str, list] = {}
    for row, cell, *_ in all_electron(data):
        if not set(cell.counts) <= set(model.atomic_numbers):
            continue
        by_element.setdefault(row["element"], []).append((row["configuration"], cell))
    found: dict[tuple[str, str], Curve | None] = {}
    for element, cells in by_element.items():

        def make(cells=cells):
            arrays = {}
            for k, (_, cell) in enumerate(cells):
                one = curve(cell, model)
                if one is not None:
                    arrays |= {f"{k}v": one.volumes, f"{k}x": one.features, f"{k}f": one.fixed}
            return arrays

        arrays = kept(out / "curves" / f"{element}.npz", make)
        for k, (configuration, _) in enumerate(cells):
            has = f"{k}v" in arrays
            found[element, configuration] = (
                Curve(arrays[f"{k}v"], arrays[f"{k}x"], arrays[f"{k}f"]) if has else None
            )
    return found


def difference_rows(data: Path, out: Path, model, most: int):
    """Rows of differences within a composition: features and errors per atom, 25 - 0 and 50 - 25 GPa."""
    import io

    from ase.io import read

    def make():
        with gzip.open(data / "alexandria_frames.extxyz.gz", "rt") as file:
            text = file.read()
        wanted, trios = [], {}
        for atoms in read(io.StringIO(text), ":", format="extxyz"):
            name, _, pressure = atoms.info["id"].partition("@")
            source = str(atoms.info.get("source", ""))
            if not source.startswith("alexandria_pressure"):
                continue
            trios.setdefault(name, {})[pressure or "0"] = atoms
        names = sorted(
            (n for n, t in trios.items() if len(t) == 3), key=lambda n: hashlib.sha256(n.encode()).digest()
        )
        known = set(model.atomic_numbers)
        for name in names:
            atoms = [trios[name][p] for p in ("0", "25GPa", "50GPa")]
            if set(atoms[0].numbers) <= known and len({len(a) for a in atoms}) == 1:
                wanted.append((name, atoms))
            if len(wanted) == most:
                break
        cells = [
            Crystal(np.asarray(a.numbers, dtype=np.int64), a.positions, a.cell.array)
            for _, t in wanted
            for a in t
        ]
        block = model.extract(cells)
        n = np.array([len(c.numbers) for c in cells], dtype=float)
        x = (block.features / n[:, None]).reshape(-1, 3, block.features.shape[1])
        energy = np.array([a.info["REF_energy"] for _, t in wanted for a in t])
        error = ((energy - block.energy_ev) / n).reshape(-1, 3)
        return {"x": x, "error": error}

    kept_rows = kept(out / "differences.npz", make)
    x, y = kept_rows["x"], kept_rows["error"]
    rows = np.concatenate([x[:, 1] - x[:, 0], x[:, 2] - x[:, 1]])
    errors = np.concatenate([y[:, 1] - y[:, 0], y[:, 2] - y[:, 1]])
    good = np.isfinite(rows).all(axis=1) & np.isfinite(errors) & (np.abs(errors) < 0.5)
    return rows[good], errors[good]


def difference_coefficients(rows, errors, model) -> Coefficients:
    """The frozen readout with the deviations of a POPS fit to differences (without a constant)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = fit_pops(array_chunks(rows, errors), PopsConfig(fit_intercept=False)).head
    axes = np.zeros((len(model.theta0_ev), head.design.size))
    axes[np.flatnonzero(head.design.active)] = head.axes / head.design.scale[:, None]
    return Coefficients(model.theta0_ev, axes, head.posterior, head.posterior)
