"""Properties of tungsten by a head of tungsten, with error bars, beside DFT values that took no part in its fit.

    python scripts/tungsten_study.py --data ../shared/data --out docs/results

Every DFT value comes from the data: equations of state, interstitials and divacancies of Sandia (PRB 99, 184305 (2019)),
elastic constants and surfaces of the Materials Virtual Lab (npj Comput. Mater. 6, 70 (2020)), and the frames of stacking
faults and dislocations of Szlachta et al. (PRB 90, 104108 (2014)) that the head's split kept apart. Cells, positions and
references of energy are those of the DFT calculation itself. Where there is no DFT value, the prediction stands alone.
Writes ``tungsten.csv`` and ``tungsten.json``; some minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase.build import bulk

from mace_bounds import BoundsPredictor
from mace_bounds.calibration import assign_splits
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import Frame, read_frames
from mace_bounds.propagation import (
    Potential,
    elastic_constants,
    equation_of_state,
    fit_equations_of_state,
    phase_energies,
)
from mace_bounds.structures import read

EV_PER_A2 = 16.021766  # in J/m²
N_DRAWS = 2000
A15 = [(0, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 4, 1 / 2, 0), (3 / 4, 1 / 2, 0), (0, 1 / 4, 1 / 2), (0, 3 / 4, 1 / 2),
       (1 / 2, 0, 1 / 4), (1 / 2, 0, 3 / 4)]  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One property."""

    group: str
    name: str
    unit: str
    value: float
    std: float
    lower: float  # of the 95 % interval
    upper: float
    range_lower: (
        float | None
    )  # the envelope of all POPS corrections, where the property is linear in the weights
    range_upper: float | None
    dft: float | None
    source: str

    @property
    def inside(self) -> bool | None:
        """Whether DFT is within the 95 % interval."""
        known = self.dft is not None and self.lower is not None
        return bool(self.lower <= self.dft <= self.upper) if known else None

    def to_row(self) -> dict[str, object]:
        """Columns of the table."""
        row = asdict(self) | {"inside_95": self.inside, "error_over_std": None, "error_over_range": None}
        if self.inside is not None:
            row["error_over_std"] = abs(self.dft - self.value) / self.std
            if self.range_lower is not None and self.range_upper is not None:
                side = self.range_upper if self.dft > self.value else self.range_lower
                row["error_over_range"] = abs(self.dft - self.value) / abs(side - self.value)
        return row


class Tungsten:
    """A head of tungsten, its draws, and the energy of the perfect crystal."""

    def __init__(self, head: str | Path, model: str | None = None) -> None:
        self.predictor = BoundsPredictor(
            model, head=head, settings=ExtractSettings(dtype="float64", device="cpu")
        )
        self.theta = self.predictor.coefficients()
        self.potential = Potential.of(self.predictor.model, self.theta, N_DRAWS)
        self.drawn = self.potential.theta_ev

    def rows(self, crystals: list) -> tuple[np.ndarray, np.ndarray]:
        """Features with the count of atoms (n, C), and the part of the energy that no weight changes, eV (n,)."""
        rows = self.potential.rows(crystals)
        return rows.features, rows.fixed_ev

    def linear(
        self, group: str, name: str, unit: str, row: np.ndarray, fixed: float, dft: float | None, source: str
    ) -> Line:
        """A property ``row @ θ + fixed``: exact standard deviation and envelope; the interval from draws."""
        values = self.drawn @ row + fixed
        low, high = self.theta.envelope(row[None])
        return Line(
            group, name, unit, float(values[0]), float(self.theta.std(row[None])[0]),
            *(float(q) for q in np.percentile(values[1:], [2.5, 97.5])),
            float(low[0]) + fixed, float(high[0]) + fixed, dft, source,
        )  # fmt: skip


def phases() -> dict[str, object]:
    """Crystals near their minima."""
    from ase import Atoms

    a15 = Atoms("W8", scaled_positions=A15, cell=5.06 * np.eye(3), pbc=True)
    atoms = {
        "bcc": bulk("W", "bcc", a=3.185),
        "A15": a15,
        "fcc": bulk("W", "fcc", a=4.03),
        "hcp": bulk("W", "hcp", a=2.76, c=2.76 * 1.72),
        "sc": bulk("W", "sc", a=2.66),
        "diamond": bulk("W", "diamond", a=5.86),
    }
    return {name: next(iter(read([cell]))).crystal for name, cell in atoms.items()}


def energy(frame: Frame) -> float:
    """Label of a frame, eV."""
    assert frame.record.energy_ev is not None
    return frame.record.energy_ev


def equations(w: Tungsten, sandia: list[Frame]) -> list[Line]:
    """Volumes and bulk moduli of phases, and their energies over bcc."""
    dft = {}
    for phase, tag in (("bcc", "/BCCEOS"), ("A15", "/15EOS"), ("fcc", "/FCCEOS")):
        own = [f for f in sandia if tag in f.record.id]
        n = own[0].n_atoms
        pairs = sorted((f.record.crystal.volume / n, energy(f) / n) for f in own)
        volumes, energies = np.array(pairs).T
        near = np.abs(volumes / volumes[np.argmin(energies)] - 1) < 0.09
        found = fit_equations_of_state(volumes[near], energies[near][None])
        dft[phase] = (found.volume_a3[0], found.bulk_modulus_gpa[0], found.energy_ev[0])
    cells, lines = phases(), []
    for phase, crystal in cells.items():
        for result in equation_of_state(crystal, w.potential):
            if result.name in ("V0", "B0"):
                known = dft.get(phase)
                value = None if known is None else known[("V0", "B0").index(result.name)]
                lines.append(
                    curve_line(
                        "phases", f"{result.name} of {phase}", result, value, "Sandia" if known else ""
                    )
                )
    for result in phase_energies(cells, w.potential):
        if result.name.startswith("E("):
            phase = result.name[2 : result.name.index(")")]
            value = 1000 * (dft[phase][2] - dft["bcc"][2]) if phase in dft else None
            lines.append(
                curve_line("phases", f"E({phase}) − E(bcc)", result, value, "Sandia" if value else "")
            )
    return lines


def curve_line(group: str, name: str, result: object, dft: float | None, source: str) -> Line:
    """A property of curves, whose envelope has no closed form; without a width where too many draws lack it."""
    return Line(group, name, result.unit, result.value, result.std, result.lower, result.upper, None, None,
                None if dft is None else float(dft), source)  # fmt: skip


def elastic(w: Tungsten, references: dict) -> list[Line]:
    """Elastic constants of bcc."""
    found = {r.name: r for r in elastic_constants(phases()["bcc"], w.potential)}
    source = "Materials Virtual Lab"
    return [
        curve_line("elastic", name, found[name], references[name], source) for name in ("C11", "C12", "C44")
    ]


def defects(w: Tungsten, sandia: list[Frame]) -> list[Line]:
    """Interstitials and divacancies at the positions of DFT, over as many atoms of bcc at its lattice constant."""
    bcc = min((f for f in sandia if "/BCCEOS" in f.record.id), key=lambda f: energy(f) / f.n_atoms)
    lines: list[Line] = []
    wanted = [f for f in sandia if f.record.source.startswith(("BCC_Force", "Divacancy"))]
    (base,), (base_fixed,) = w.rows([bcc.record.crystal])
    features, fixed = w.rows([f.record.crystal for f in wanted])
    for f, row, rest in zip(wanted, features, fixed, strict=True):
        share = f.n_atoms / bcc.n_atoms
        if f.record.source == "Divacancy" and int(f.record.id.rsplit("_", 1)[1]) % 8 != 1:
            continue  # 39 cells of nearly one energy: every eighth
        name = f.record.id.rsplit("/", 1)[1].replace("_Flib", "")
        dft = energy(f) - share * energy(bcc)
        if any(line.dft is not None and abs(line.dft - dft) < 1e-6 for line in lines):
            continue  # the set has some cells under two names
        lines.append(
            w.linear("defects", name, "eV", row - share * base, rest - share * base_fixed, dft, "Sandia")
        )
    return lines


def surfaces(w: Tungsten, mvl: list[Frame], names: list[str]) -> list[Line]:
    """Surface energies of relaxed slabs of DFT, over bcc of the same set; ``names`` of the surfaces by their numbers."""
    bcc = min((f for f in mvl if f.record.source == "W_Elastic"), key=lambda f: energy(f) / f.n_atoms)
    (base,), (base_fixed,) = w.rows([bcc.record.crystal])
    slabs = [f for f in mvl if f.record.source == "W_Surface"]
    features, fixed = w.rows([f.record.crystal for f in slabs])
    lines = []
    for f, row, rest in zip(slabs, features, fixed, strict=True):
        crystal, share = f.record.crystal, f.n_atoms / bcc.n_atoms
        inverse = EV_PER_A2 / (2.0 * area(crystal))
        dft = inverse * (energy(f) - share * energy(bcc))
        name = f"surface {names[int(f.record.id.rsplit('/', 1)[1])]}, {f.n_atoms} atoms"
        lines.append(
            w.linear("surfaces", name, "J/m²", inverse * (row - share * base), inverse * (rest - share * base_fixed), dft,
                     "Materials Virtual Lab")
        )  # fmt: skip
    return lines


def area(crystal: object) -> float:
    """Area of the face of the cell that the vacuum is normal to, Å²."""
    fractional = np.sort(crystal.positions @ np.linalg.inv(crystal.cell) % 1.0, axis=0)
    gaps = np.vstack([np.diff(fractional, axis=0), fractional[:1] + 1.0 - fractional[-1:]]).max(axis=0)
    heights = [
        crystal.volume / np.linalg.norm(np.cross(*np.delete(crystal.cell, k, axis=0))) for k in range(3)
    ]
    normal = int(np.argmax(gaps * heights))
    return float(np.linalg.norm(np.cross(*np.delete(crystal.cell, normal, axis=0))))


def left_out(w: Tungsten, frames: list[Frame], family: str, n: int) -> list[Line]:
    """Energies of frames that the head's split kept apart, over as many atoms of bcc: the first by their names."""
    settings = w.predictor.head.provenance["settings"]
    ids = [f.record.id for f in frames]
    share = {"fit": 1.0 - settings["test_share"], "test": settings["test_share"]}
    test = assign_splits(ids, share, settings["seed"]) == "test"
    bcc = min((f for f in frames if f.record.source == "slice_sample"), key=lambda f: energy(f) / f.n_atoms)
    chosen = sorted(
        (f for f, own in zip(frames, test, strict=True) if own and f.record.source == family),
        key=lambda f: f.record.id,
    )
    chosen = chosen[:: max(len(chosen) // n, 1)][:n]
    (base,), (base_fixed,) = w.rows([bcc.record.crystal])
    features, fixed = w.rows([f.record.crystal for f in chosen])
    return [
        w.linear(
            family, f.record.id.rsplit("/", 1)[1], "eV", row - f.n_atoms * base, rest - f.n_atoms * base_fixed,
            energy(f) - f.n_atoms * energy(bcc), "Szlachta et al., kept apart",
        )
        for f, row, rest in zip(chosen, features, fixed, strict=True)
    ]  # fmt: skip


def summary(lines: list[Line]) -> list[dict[str, object]]:
    """Share of DFT values inside the interval and mean |error| / std, by group and of all."""
    out = []
    for group in [*dict.fromkeys(line.group for line in lines), "all"]:
        rows = [x.to_row() for x in lines if x.inside is not None and group in ("all", x.group)]
        ranges = [r["error_over_range"] for r in rows if r["error_over_range"] is not None]
        out.append(
            {
                "group": group,
                "n": len(rows),
                "inside_95": float(np.mean([r["inside_95"] for r in rows])) if rows else None,
                "mean_error_over_std": float(np.mean([r["error_over_std"] for r in rows])) if rows else None,
                "within_range": float(np.mean(np.array(ranges) <= 1.0)) if ranges else None,
                "mean_error_over_range": float(np.mean(ranges)) if ranges else None,
            }
        )
    return out


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--head", default="tungsten-mini")
    parser.add_argument("--model", help="the head's by default")
    parser.add_argument("--out", type=Path, required=True, help="folder of tungsten.csv and tungsten.json")
    args = parser.parse_args()
    w, folder = Tungsten(args.head, args.model), args.data / "tungsten"
    sandia = read_frames(folder / "fitsnap_sandia_w.extxyz.gz")
    mvl = read_frames(folder / "mvl_w.extxyz.gz")
    references = json.loads((folder / "mvl_pbe_references.json").read_text())["W"]
    szlachta = read_frames([folder / f"fitsnap_szlachta_2014_{part}.extxyz.gz" for part in "ab"])
    lines = [
        *equations(w, sandia),
        *elastic(w, references),
        *defects(w, sandia),
        *surfaces(w, mvl, list(references["surfaces_j_per_m2"])),
        *left_out(w, szlachta, "gamma_surface", 12),
        *left_out(w, szlachta, "dislocation_quadrupole", 8),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([line.to_row() for line in lines])
    table.to_csv(args.out / "tungsten.csv", index=False, float_format="%.6g")
    head = w.predictor.head
    found = {
        "head": head.name,
        "head_digest": head.digest,
        "model_digest": head.identity.model_digest,
        "n_draws": N_DRAWS,
        "summary": summary(lines),
    }
    (args.out / "tungsten.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table.to_string())
    print(pd.DataFrame(summary(lines)).to_string(index=False))


if __name__ == "__main__":
    main()
