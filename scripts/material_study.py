"""Properties of one metal by its head, with error bars, beside DFT values that took no part in the fit.

    python scripts/material_study.py --data ../shared/data --out docs/results
    python scripts/material_study.py --data ../shared/data --out docs/results --element Mo --head runs/Mo/head

DFT values come from the data: equations of state, interstitials and divacancies of Sandia (PRB 99, 184305 (2019)); elastic
constants, surfaces, vacancies and grain boundaries of the Materials Virtual Lab (npj Comput. Mater. 6, 70 (2020), and the
frames of 2017); phases by two all-electron codes (Bosoni et al., Nat. Rev. Phys. 6, 45 (2024)); and for tungsten frames of
Szlachta et al. (PRB 90, 104108 (2014)) that the head's split kept apart. Cells, positions and references of energy are those
of the DFT calculation itself. What is compared with frames of a family that took part in the fit is said by a head that was
fitted without it (``HEAD-without-FAMILY``, :mod:`build_material_head`); without such a head the line is left out. Where
there is no DFT value the prediction stands alone. Writes a CSV and a JSON by the name of the metal; minutes of one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from mace_bounds.calibration import assign_splits
from mace_bounds.fitting import Frame
from mace_bounds.propagation import (
    elastic_constants,
    equation_of_state,
    fit_equations_of_state,
    phase_energies,
)
from mace_bounds.structures import Crystal, read
from material_data import DOUBTED, LAB, METALS, Metal, energy_ev
from material_lines import N_DRAWS, Line, Studied, crystal_of, lowest, number_of, summary

EV_PER_A2 = 16.021766  # in J/m²
KEPT_APART = "Szlachta et al., kept apart"
A15 = [(0, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 4, 1 / 2, 0), (3 / 4, 1 / 2, 0), (0, 1 / 4, 1 / 2), (0, 3 / 4, 1 / 2),
       (1 / 2, 0, 1 / 4), (1 / 2, 0, 3 / 4)]  # fmt: skip


def phases(metal: Metal, a: float) -> dict[str, Crystal]:
    """Crystals near their minima, from the lattice constant of bcc, Å; their ratios are those of tungsten."""
    s, unit = metal.symbol, a / 3.185
    cells = {
        "bcc": bulk(s, "bcc", a=a),
        "A15": Atoms(f"{s}8", scaled_positions=A15, cell=5.06 * unit * np.eye(3), pbc=True),
        "fcc": bulk(s, "fcc", a=4.03 * unit),
        "hcp": bulk(s, "hcp", a=2.76 * unit, c=2.76 * 1.72 * unit),
        "sc": bulk(s, "sc", a=2.66 * unit),
        "diamond": bulk(s, "diamond", a=5.86 * unit),
    }
    return {name: next(iter(read([cell]))).crystal for name, cell in cells.items()}


DftStates = dict[str, tuple[float, float, float]]
"""By phase: volume, Å³/atom; bulk modulus, GPa; energy over bcc, eV/atom."""


def states_of_sandia(frames: list[Frame]) -> DftStates:
    """Equations of state of Sandia's frames of tungsten."""
    found: DftStates = {}
    for phase, tag in (("bcc", "/BCCEOS"), ("A15", "/15EOS"), ("fcc", "/FCCEOS")):
        own = [f for f in frames if tag in f.record.id]
        pairs = sorted((crystal_of(f).volume / f.n_atoms, energy_ev(f) / f.n_atoms) for f in own)
        volumes, energies = np.array(pairs).T
        near = np.abs(volumes / volumes[np.argmin(energies)] - 1) < 0.09
        state = fit_equations_of_state(volumes[near], energies[near][None])
        energy = float(state.energy_ev[0]) - (found["bcc"][2] if found else 0.0)
        found[phase] = (float(state.volume_a3[0]), float(state.bulk_modulus_gpa[0]), energy)
    base = found["bcc"][2]
    return {phase: (v, b, e - base if phase == "bcc" else e) for phase, (v, b, e) in found.items()}


def states_by_all_electron_codes(data: Path, metal: Metal) -> DftStates:
    """Means of two all-electron codes; empty for metals that are not in the data."""
    names = {"X/BCC": "bcc", "X/FCC": "fcc", "X/SC": "sc", "X/Diamond": "diamond"}
    rows = {}
    with gzip.open(data / "acwf/acwf_pbe.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["element"] == metal.symbol and row["configuration"] in names:
                rows[names[row["configuration"]]] = row
    found: DftStates = {}
    for phase, row in rows.items():
        codes = ("wien2k", "fleur")
        over = [
            row["fit"][c]["E0_ev"] / row["n_atoms"] - rows["bcc"]["fit"][c]["E0_ev"] / rows["bcc"]["n_atoms"]
            for c in codes
        ]
        mean = row["fit"]["ae_average"]
        found[phase] = (mean["V0_a3"] / row["n_atoms"], mean["B0_gpa"], float(np.mean(over)))
    return found


def equations(w: Studied) -> list[Line]:
    """Volumes and bulk moduli of phases, and their energies over bcc."""
    if sandia := w.elsewhere.get("Sandia"):
        dft, source = states_of_sandia(sandia), "Sandia"
    else:
        dft, source = states_by_all_electron_codes(w.data, w.metal), "all-electron codes"
    cells, lines = phases(w.metal, w.reference["a0_a"]), []
    for phase, crystal in cells.items():
        for result in equation_of_state(crystal, w.potential):
            if result.name in ("V0", "B0"):
                value = dft[phase][("V0", "B0").index(result.name)] if phase in dft else None
                lines.append(curve_line("phases", f"{result.name} of {phase}", result, value, source))
    for result in phase_energies(cells, w.potential):
        if result.name.startswith("E("):
            phase = result.name[2 : result.name.index(")")]
            value = 1000 * dft[phase][2] if phase in dft else None
            lines.append(curve_line("phases", f"E({phase}) − E(bcc)", result, value, source))
    return lines


def curve_line(group: str, name: str, result: object, dft: float | None, source: str) -> Line:
    """A property of curves, whose envelope has no closed form; without a width where too many draws lack it."""
    return Line(group, name, result.unit, result.value, result.std, result.lower, result.upper, None, None,
                dft, "" if dft is None else source)  # fmt: skip


def elastic(w: Studied) -> list[Line]:
    """Elastic constants of bcc."""
    unseen = w.unseen(f"{w.metal.symbol}_Elastic")
    if unseen is None:
        return []
    cell = phases(w.metal, w.reference["a0_a"])["bcc"]
    found = {r.name: r for r in elastic_constants(cell, unseen.potential)}
    return [
        curve_line("elastic", name, found[name], w.reference[name], LAB) for name in ("C11", "C12", "C44")
    ]


def interstitials(w: Studied) -> list[Line]:
    """Interstitials and divacancies of Sandia at the positions of DFT."""
    sandia = w.elsewhere.get("Sandia", [])
    wanted: list[Frame] = []
    for f in sandia:
        few = (
            f.record.source == "Divacancy" and number_of(f) % 8 == 1
        )  # 39 cells of nearly one energy: every eighth
        again = any(abs(energy_ev(f) - energy_ev(g)) < 1e-6 for g in wanted)  # some cells have two names
        if (f.record.source.startswith("BCC_Force") or few) and not again:
            wanted.append(f)
    if not wanted:
        return []
    names = [f.record.id.rsplit("/", 1)[1].replace("_Flib", "") for f in wanted]
    bcc = lowest([f for f in sandia if "/BCCEOS" in f.record.id])
    return w.over_bulk("interstitials and divacancies", wanted, names, bcc, "Sandia")


def surfaces(w: Studied) -> list[Line]:
    """Surface energies of relaxed slabs of DFT, over bcc of the same set, J/m²."""
    unseen = w.unseen(f"{w.metal.symbol}_Surface")
    if unseen is None:
        return []
    bcc = lowest([f for f in w.lab if f.record.source.endswith("_Elastic")])
    slabs = [f for f in w.lab if f.record.source.endswith("_Surface")]
    (base,), (base_fixed,) = unseen.rows([crystal_of(bcc)])
    features, fixed = unseen.rows([crystal_of(f) for f in slabs])
    names, lines = list(w.reference["surfaces_j_per_m2"]), []
    for f, row, rest in zip(slabs, features, fixed, strict=True):
        share, unit = f.n_atoms / bcc.n_atoms, EV_PER_A2 / (2.0 * area(crystal_of(f)))
        name = f"surface {names[number_of(f)]}"
        doubted = (w.metal.symbol, name) in DOUBTED
        dft = None if doubted else unit * (energy_ev(f) - share * energy_ev(bcc))
        line = unseen.linear(
            ("surfaces", f"{name}, {f.n_atoms} atoms", "J/m²"), unit * (row - share * base),
            unit * (rest - share * base_fixed), dft, "doubtful there" if doubted else LAB,
        )  # fmt: skip
        lines.append(line)
    return lines


def area(crystal: Crystal) -> float:
    """Area of the face of the cell that the vacuum is normal to, Å²."""
    fractional = np.sort(crystal.positions @ np.linalg.inv(crystal.cell) % 1.0, axis=0)
    gaps = np.vstack([np.diff(fractional, axis=0), fractional[:1] + 1.0 - fractional[-1:]]).max(axis=0)
    heights = [
        crystal.volume / np.linalg.norm(np.cross(*np.delete(crystal.cell, k, axis=0))) for k in range(3)
    ]
    normal = int(np.argmax(gaps * heights))
    return float(np.linalg.norm(np.cross(*np.delete(crystal.cell, normal, axis=0))))


def of_the_lab_in_2017(w: Studied) -> list[Line]:
    """Cells with a vacancy (snapshots of molecular dynamics, every second) and grain boundaries, over bcc, eV."""
    frames = w.elsewhere.get(f"{LAB}, 2017", [])
    bcc = lowest([f for f in w.lab if f.record.source.endswith("_Elastic")])
    lines: list[Line] = []
    for family, group, step in (("Vacancy", "vacancy", 2), ("GB", "grain boundaries", 1)):
        by_energy = {round(energy_ev(f), 2): f for f in reversed(frames) if f.record.source == family}
        chosen = sorted(by_energy.values(), key=number_of)[::step]  # some cells are there several times
        names = [f"{family} {number_of(f)}, {f.n_atoms} atoms" for f in chosen]
        lines += w.over_bulk(group, chosen, names, bcc, f"{LAB}, 2017") if chosen else []
    return lines


def kept_apart(w: Studied, family: str, n: int) -> list[Line]:
    """Energies of frames of a family that the head's split kept apart, over as many atoms of bcc: so many, spread."""
    if family not in w.predictor.head.provenance["sources"] or w.metal.symbol != "W":
        return []
    settings = w.predictor.head.provenance["settings"]
    share = {"fit": 1.0 - settings["test_share"], "test": settings["test_share"]}
    test = assign_splits([f.record.id for f in w.fitted], share, settings["seed"]) == "test"
    own = [f for f, apart in zip(w.fitted, test, strict=True) if apart and f.record.source == family]
    chosen = sorted(own, key=lambda f: f.record.id)[:: max(len(own) // n, 1)][:n]
    bcc = lowest([f for f in w.fitted if f.record.source == "slice_sample"])
    names = [f.record.id.rsplit("/", 1)[1] for f in chosen]
    return w.over_bulk(family.replace("_", " "), chosen, names, bcc, KEPT_APART)


# Planes of the γ-surface frames by their in-plane vectors, Å: the steps of the cell along ½⟨111⟩ in units of these
LINES = {
    "(110) along ½[111]": ((4.498, 3.180), [(k / 10, k / 10) for k in range(1, 5)]),
    "(112) along ½[111]": ((2.754, 4.498), [(k / 10, 0.0) for k in range(1, 10)]),
}


def gamma_lines(w: Studied) -> list[Line]:
    """Energy of rigid, unrelaxed faults along a line, J/m², by a head that has seen no γ-surface frame."""
    family = "gamma_surface"
    if w.metal.symbol != "W" or (unseen := w.unseen(family)) is None:
        return []
    frames = [f for f in w.fitted if f.record.source == family]
    bcc = lowest([f for f in w.fitted if f.record.source == "slice_sample"])
    lines: list[Line] = []
    for name, (sides, steps) in LINES.items():
        for step in steps:
            found = [f for f in frames if _shifted(crystal_of(f), sides, step)]
            if not found:
                continue
            (line,) = unseen.over_bulk(
                "", found[:1], [f"{name}, {max(step):g}"], bcc, "Szlachta et al., family left out"
            )
            lines.append(line.scaled("γ-surface lines", "J/m²", EV_PER_A2 / (sides[0] * sides[1])))
    return lines


def _shifted(crystal: Crystal, sides: tuple[float, float], step: tuple[float, float]) -> bool:
    """Whether a cell is perfect but for a shift of its first vector by a step in the plane of the others."""
    lengths = np.linalg.norm(crystal.cell[1:], axis=1)
    if np.abs(lengths - sides).max() > 2e-3:
        return False
    height = crystal.volume / np.prod(lengths)
    shift = np.array([crystal.cell[0] @ crystal.cell[k + 1] / lengths[k] ** 2 for k in range(2)])
    layers = crystal.positions[:, 0] / height * 12  # at most so many, at equal distances
    off = np.abs(layers - np.round(layers)).max() * height / 12
    return bool(np.abs(shift - step).max() < 2e-3 and off < 2e-3)


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--element", choices=tuple(METALS), default="W")
    parser.add_argument("--head", default="tungsten-mini")
    parser.add_argument("--model", help="the head's by default")
    parser.add_argument("--out", type=Path, required=True, help="folder of the CSV and the JSON")
    args = parser.parse_args()
    metal = METALS[args.element]
    w = Studied(metal, args.head, args.data, args.model)
    lines = [
        *equations(w),
        *elastic(w),
        *interstitials(w),
        *kept_apart(w, "vacancy", 8),
        *of_the_lab_in_2017(w),
        *surfaces(w),
        *gamma_lines(w),
        *kept_apart(w, "gamma_surface", 12),
        *kept_apart(w, "dislocation_quadrupole", 8),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([line.to_row() for line in lines])
    table.to_csv(args.out / f"{metal.name}.csv", index=False, float_format="%.6g")
    head = w.predictor.head
    found = {
        "head": head.name,
        "head_digest": head.digest,
        "model_digest": head.identity.model_digest,
        "n_draws": N_DRAWS,
        "lab_volume_a3_per_atom": w.reference["a0_a"] ** 3 / 2,
        "summary": summary(lines),
    }
    (args.out / f"{metal.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table.to_string())
    print(pd.DataFrame(summary(lines)).to_string(index=False))


if __name__ == "__main__":
    main()
