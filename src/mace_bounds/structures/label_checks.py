"""What the labels of a source are, judged by the model's energies of the same crystals: a total energy or not.

A key can be called ``energy`` whatever it holds. Beside the model's energies it shows: a model's own energies agree to
round-off, other units are another slope, energies per atom agree once multiplied, formation energies once the elements
are added. The model need not be good: what is refused is more than four times nearer to it after a conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.data import atomic_numbers
from numpy.typing import NDArray

if TYPE_CHECKING:
    Array = NDArray[np.float64]

ROUND_OFF_EV_PER_ATOM = 1e-4
"""Energies of one model on two devices, in two precisions or after printing differ by less."""
MINIMUM_ROWS = 8
"""Fewer labels than these are compared with the model's own energies, and refused where a plain conversion fits all."""
FOREIGN_EV_PER_ATOM = 3.0
"""Distance from the model's energy, beyond which a label is no error of the model."""

_EXACT_EV_PER_ATOM = 1e-5  # fewer than four labels may be near by chance
_FEW = 4
_ENOUGH = 2_000  # rows of a large source, evenly spaced
_NEARER, _GAIN_EV_PER_ATOM = 4.0, 0.15
_FAR_EV_PER_ATOM, _NEAR_EV_PER_ATOM = (
    1.0,
    0.1,
)  # what tells another unit by few labels: all far, then all near
_RIGHT_EV_PER_ATOM = 0.5  # so near to the model is no other quantity
_LEVERAGE = 0.9  # a row that its own elements alone determine says nothing of a fit by elements
_TOTALS = "uncorrected PBE(+U) total energies of the cells in eV, as the Materials Project computes them"
_UNITS = {
    "eV": 1.0,
    "hartree": units.Hartree,
    "rydberg": units.Rydberg,
    "kJ/mol": units.kJ / units.mol,
    "kcal/mol": units.kcal / units.mol,
    "meV": 1e-3,
}
_BASES = {"": "", "per atom": "the number of atoms", "per formula unit": "the number of formula units"}

# eV/atom of the elements at 0 K, uncorrected PBE of the Materials Project (2023-02-07, as in matbench-discovery, MIT).
_ELEMENTS_TEXT = """
H -3.393 He -0.009 Li -1.909 Be -3.739 B -6.679 C -9.229 N -8.336 O -4.947 F -1.911 Ne -0.026 Na -1.323 Mg
-1.6 Al -3.746 Si -5.425 P -5.413 S -4.136 Cl -1.849 Ar -0.069 K -1.11 Ca -2.006 Sc -6.332 Ti -7.895 V
-9.084 Cr -9.653 Mn -9.162 Fe -8.47 Co -7.108 Ni -5.78 Cu -4.099 Zn -1.26 Ga -3.028 Ge -4.623 As -4.659 Se
-3.496 Br -1.553 Kr -0.057 Rb -0.981 Sr -1.689 Y -6.466 Zr -8.548 Nb -10.101 Mo -10.846 Tc -10.361 Ru -9.274
Rh -7.364 Pd -5.18 Ag -2.833 Cd -0.923 In -2.752 Sn -4.01 Sb -4.129 Te -3.143 I -1.473 Xe -0.036 Cs -0.895
Ba -1.919 La -4.936 Ce -5.933 Pr -4.781 Nd -4.768 Pm -4.751 Sm -4.719 Eu -10.257 Gd -14.076 Tb -4.634 Dy
-4.607 Ho -4.582 Er -4.568 Tm -4.476 Yb -1.54 Lu -4.521 Hf -9.957 Ta -11.858 W -12.958 Re -12.445 Os -11.227
Ir -8.838 Pt -6.071 Au -3.274 Hg -0.304 Tl -2.363 Pb -3.713 Bi -3.84 Ac -4.121 Th -7.414 Pa -9.515 U -11.291
Np -12.948 Pu -14.268
"""
# Cohesive energies of the elements, eV/atom, experimental (as in Kittel, Introduction to Solid State Physics; the
# noble gases and some actinides rounded): with the above, energies of free atoms to some tenths of an eV.
_COHESIVE_TEXT = """
H 2.24 He 0 Li 1.63 Be 3.32 B 5.81 C 7.37 N 4.92 O 2.6 F 0.84 Ne 0.02 Na 1.11 Mg 1.51 Al 3.39 Si 4.63 P 3.43 S 2.85
Cl 1.4 Ar 0.08 K 0.93 Ca 1.84 Sc 3.9 Ti 4.85 V 5.31 Cr 4.1 Mn 2.92 Fe 4.28 Co 4.39 Ni 4.44 Cu 3.49 Zn 1.35 Ga 2.81
Ge 3.85 As 2.96 Se 2.46 Br 1.22 Kr 0.12 Rb 0.85 Sr 1.72 Y 4.37 Zr 6.25 Nb 7.57 Mo 6.82 Tc 6.85 Ru 6.74 Rh 5.75 Pd
3.89 Ag 2.95 Cd 1.16 In 2.52 Sn 3.14 Sb 2.75 Te 2.19 I 1.11 Xe 0.16 Cs 0.8 Ba 1.9 La 4.47 Ce 4.32 Pr 3.7 Nd 3.4 Pm
3 Sm 2.14 Eu 1.86 Gd 4.14 Tb 4.05 Dy 3.04 Ho 3.14 Er 3.29 Tm 2.42 Yb 1.6 Lu 4.43 Hf 6.44 Ta 8.1 W 8.9 Re 8.03 Os
8.17 Ir 6.94 Pt 5.84 Au 3.81 Hg 0.67 Tl 1.88 Pb 2.03 Bi 2.18 Ac 4.25 Th 6.2 Pa 5.9 U 5.55 Np 4.73 Pu 3.6
"""


def _by_number(text: str) -> dict[int, float]:
    words = text.split()
    return {atomic_numbers[s]: float(e) for s, e in zip(words[::2], words[1::2], strict=True)}


_ELEMENTS, _COHESIVE = _by_number(_ELEMENTS_TEXT), _by_number(_COHESIVE_TEXT)
# MP2020 corrections (A. Wang et al., Sci. Rep. 11, 15496 (2021)), eV per atom of the anion or the metal beside O or F.
_ANIONS = {
    8: -0.687,
    16: -0.503,
    9: -0.462,
    17: -0.614,
    35: -0.534,
    53: -0.379,
    7: -0.361,
    34: -0.472,
    1: -0.179,
}
_METALS = {23: -1.7, 24: -1.999, 25: -1.668, 26: -2.256, 27: -1.638, 28: -2.541, 74: -4.438, 42: -3.202}


@dataclass(frozen=True)
class Trouble:
    """Why the labels of a source are no labels.

    Attributes
    ----------
    kind : str
        ``"own"``, ``"units"``, ``"per atom"``, ``"formation"``, ``"atoms"``, ``"corrected"``, ``"zero"``,
        ``"foreign"``.
    what : str
        What the labels are: ends the sentence "the labels are ...".
    remedy : str
        What to do.
    """

    kind: str
    what: str
    remedy: str

    def sentence(self, whose: str = "the labels") -> str:
        """Say both in one sentence."""
        return f"{whose} are {self.what}; {self.remedy}."


def label_trouble(
    label_ev: Array, model_ev: Array, counts: Array, fixed_ev: Array | None = None
) -> Trouble | None:
    """Recognise labels that are not the total energy that the model predicts.

    Parameters
    ----------
    label_ev, model_ev : ndarray of float64, shape (n,)
        Labels and the model's total energies of the same cells, eV.
    counts : ndarray, shape (n, 119)
        Atoms of each element in each cell; the column is the atomic number.
    fixed_ev : ndarray of float64, shape (n,), optional
        The model's energies of the isolated atoms, eV.

    Returns
    -------
    Trouble or None
        None for labels that can be total energies, also bad ones: of a source of fewer than eight, all that are
        neither the model's own energies nor all total energies once their unit is converted.
    """
    rows = _Rows.of(label_ev, model_ev, counts, fixed_ev)
    if rows is None:
        return None
    if own := _own(rows):
        return own
    if len(rows.label) < MINIMUM_ROWS:
        return _plainly_converted(rows)
    return _converted(rows) or _regressed(rows)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Distinct rows; energies per atom are those of the cell over its atoms, whatever the label is."""

    label: Array
    model: Array
    n: Array
    counts: Array  # only of the elements that are there
    numbers: NDArray[np.int64]
    fixed: Array | None

    @classmethod
    def of(cls, label: Array, model: Array, counts: Array, fixed: Array | None) -> _Rows | None:
        good = np.isfinite(label) & np.isfinite(model) & (counts.sum(axis=1) > 0)
        n = counts[good].sum(axis=1).astype(np.float64)
        if not len(n):
            return None
        # copies of a crystal, or its supercells, are one crystal: they would make every fit look exact
        same = np.round(np.column_stack([counts[good] / n[:, None], model[good] / n]), 6)
        first = np.sort(np.unique(same, axis=0, return_index=True)[1])
        first = first[:: -(-len(first) // _ENOUGH)]
        kept = counts[good][first].astype(np.float64)
        numbers = np.flatnonzero(kept.any(axis=0))
        return cls(
            np.asarray(label[good][first], dtype=np.float64),
            np.asarray(model[good][first], dtype=np.float64),
            n[first],
            kept[:, numbers],
            numbers,
            None if fixed is None else np.asarray(fixed[good][first], dtype=np.float64),
        )

    @property
    def error(self) -> Array:
        return (self.label - self.model) / self.n

    @property
    def fractions(self) -> Array:
        return self.counts / self.n[:, None]


def _own(rows: _Rows) -> Trouble | None:
    """The model's own energies, also after a shift for each atom or for each element."""
    tolerance = ROUND_OFF_EV_PER_ATOM + _last_digit(rows.label) / rows.n
    distance = np.abs(rows.error)
    few = len(distance) < _FEW
    remedy = "give DFT energies, and name their key (--energy-key)"
    if (distance.max() < _EXACT_EV_PER_ATOM) if few else (np.median(distance / tolerance) < 1):
        typical = f"{1e3 * float(np.median(distance)):.1g} meV/atom"
        return Trouble("own", f"the model's own energies, to within {typical}, and no DFT energies", remedy)
    shifts = (("atom", np.ones((len(distance), 1))), ("element", rows.fractions))
    for what, design in shifts:
        fitted = _left_out(design, np.column_stack([rows.error, rows.model / rows.n]))
        if fitted is None:
            continue
        (error, energy), kept = fitted.T, ~np.isnan(fitted[:, 0])
        # energies that the shift alone explains (copies of few crystals) cannot tell
        varies = np.median(np.abs(energy[kept])) > 20 * np.median(tolerance)
        if varies and np.median(np.abs(error[kept]) / tolerance[kept]) < 1:
            return Trouble("own", f"the model's own energies, shifted by a constant for each {what}", remedy)
    return None


def _last_digit(label: Array) -> float:
    """Half of the last digit to which labels were rounded, eV; 0 for those with six digits and more."""
    for digits in range(2, 6):
        if np.allclose(label, np.round(label, digits), rtol=0, atol=1e-8):
            return float(0.5 * 10.0**-digits)
    return 0.0


def _converted(rows: _Rows) -> Trouble | None:
    """What becomes a total energy by a conversion without free parameters."""
    now = np.abs(rows.error)
    right = now < _RIGHT_EV_PER_ATOM
    best: tuple[float, Trouble] | None = None
    for energy, zero, trouble in _conversions(rows):
        error = np.abs((energy + zero - rows.model) / rows.n)
        distance = float(np.median(error))
        nearer = distance * _NEARER < np.median(now) and distance + _GAIN_EV_PER_ATOM < np.median(now)
        # labels must say more than their zero alone, and the many that are right as they are must stay so
        share = (
            0.2 if " in " in trouble.what.replace(" in eV", "") else 0.5
        )  # another unit brings all near to zero
        informs = distance < share * np.median(np.abs((zero - rows.model) / rows.n))
        keeps = np.mean(right) < 0.15 or np.median(error[right]) < 1.5 * np.median(now[right]) + 0.05
        if nearer and informs and keeps and (best is None or distance < 0.9 * best[0]):
            best = distance, trouble
    return _corrected(rows) if best is None else best[1]


def _plainly_converted(rows: _Rows) -> Trouble | None:
    """Energies per atom or in another unit: each of a few labels is far from the model, and near once converted."""
    if np.abs(rows.error).min() < _FAR_EV_PER_ATOM:
        return None
    for energy, zero, trouble in _conversions(rows):
        plain = trouble.kind in ("per atom", "units") and "formula" not in trouble.what
        if plain and np.abs((energy + zero - rows.model) / rows.n).max() < _NEAR_EV_PER_ATOM:
            return trouble
    return None


def _conversions(rows: _Rows) -> Iterator[tuple[Array, Array, Trouble]]:
    """Every reading of the labels as something else: what it makes of them, and the zero to add, both in eV."""
    units_per_cell = _formula_units(rows.counts)
    nothing = np.zeros_like(rows.n)
    elements = rows.counts @ np.array([_ELEMENTS.get(int(z), np.nan) for z in rows.numbers])
    atoms = elements + rows.counts @ np.array([_COHESIVE.get(int(z), np.nan) for z in rows.numbers])
    far = np.median(np.abs(rows.error)) > _FAR_EV_PER_ATOM
    free = [zero for zero in (rows.fixed, atoms) if far and zero is not None and np.isfinite(zero).all()]
    for basis, by in _BASES.items():
        size = {"": 1.0, "per atom": rows.n, "per formula unit": units_per_cell}[basis]
        for unit, factor in _UNITS.items():
            energy = rows.label * factor * size
            text = " ".join(x for x in (basis, f"in {unit}") if x and x != "in eV")
            steps = [f"{factor:.6g} (to eV)"] * (unit != "eV") + [by] * bool(by)
            multiply = f"multiply them by {' and by '.join(steps)}"
            if text:
                kind = "units" if unit != "eV" else "per atom"
                yield energy, nothing, Trouble(kind, f"energies {text}, not of the cell in eV", multiply)
            if np.isfinite(elements).all():
                what = f"formation energies {text}".rstrip() + ", relative to the elements"
                yield energy, elements, Trouble("formation", what, f"give {_TOTALS}")
            what = f"{text}, relative to isolated atoms".removeprefix(", ")
            for zero in free:
                for sign, name in ((1, "energies"), (-1, "cohesive energies")):
                    yield sign * energy, zero, Trouble("atoms", f"{name} {what}", f"give {_TOTALS}")


def _formula_units(counts: Array) -> Array:
    return np.asarray(
        np.gcd.reduce(np.round(counts).astype(np.int64), axis=1).astype(np.float64), dtype=np.float64
    )


def _corrected(rows: _Rows) -> Trouble | None:
    """Energies with the corrections of the Materials Project, by the crystals that have one."""
    correction = _mp_corrections(rows) / rows.n
    with_one = np.abs(correction) > 0.1
    if with_one.sum() < MINIMUM_ROWS:
        return None
    error = rows.error[with_one]
    now, then = np.median(np.abs(error)), np.median(np.abs(error - correction[with_one]))
    if then * _NEARER > now or then + _GAIN_EV_PER_ATOM > now:
        return None
    return Trouble(
        "corrected",
        "energies with the corrections of the Materials Project (MP2020)",
        "take the uncorrected energies (entry.uncorrected_energy)",
    )


def _mp_corrections(rows: _Rows) -> Array:
    """What the Materials Project would add to the energies of the cells, eV; simplified to oxides and single anions."""
    from pymatgen.core import Element

    negative = {int(z): float(Element.from_Z(int(z)).X) for z in rows.numbers if int(z) in _ANIONS}
    total = np.zeros(len(rows.n))
    for k, present in enumerate(rows.counts > 0):
        zs = [int(z) for z in rows.numbers[present]]
        if len(zs) < 2:
            continue
        anion = max((z for z in zs if z in negative), key=lambda z: negative[z], default=0)
        chosen = {z: _ANIONS[z] for z in zs if z == anion or z == 8}
        if anion in (8, 9):
            chosen |= {z: _METALS[z] for z in zs if z in _METALS}
        total[k] = sum(rows.counts[k, list(rows.numbers).index(z)] * value for z, value in chosen.items())
    return total


def _regressed(rows: _Rows) -> Trouble | None:
    """Energies in some unit with a zero of their own for each element; or simply something else."""
    typical, remedy = float(np.median(np.abs(rows.error))), f"give {_TOTALS}"
    if np.quantile(np.abs(rows.error), 0.25) < _RIGHT_EV_PER_ATOM:
        return None
    best: tuple[float, Trouble] | None = None
    for basis, size in (("", 1.0 / rows.n), ("per atom", np.ones_like(rows.n))):
        fitted = _left_out(rows.fractions, np.column_stack([rows.label * size, rows.model / rows.n]))
        if fitted is None or typical < 1.0:
            continue
        label, model = fitted[~np.isnan(fitted[:, 0])].T
        slope, error = _slope(model, label)
        unit = next((u for u, f in _UNITS.items() if 1 / 1.3 < abs(slope) * f < 1.3), None)
        if unit is None or abs(slope) < 6 * error:
            continue
        spread = float(np.median(np.abs(label / slope - model)))
        if spread * 5 < typical and (best is None or spread < 0.7 * best[0]):
            text = " ".join(x for x in (basis, f"in {unit}") if x and x != "in eV")
            sign = "cohesive energies, of the other sign" if slope < 0 else "energies"
            why = "relative to isolated atoms or the elements, of other pseudopotentials or of an all-electron code"
            what = f"{sign} {text}".rstrip() + f" with another zero for each element ({why})"
            kind = "units" if unit != "eV" else "zero"
            best = (
                spread,
                Trouble(
                    kind, what, remedy + (f" (1 {unit} is {_UNITS[unit]:.6g} eV)" if unit != "eV" else "")
                ),
            )
    if best is not None:
        return best[1]
    if np.mean(np.abs(rows.error) > FOREIGN_EV_PER_ATOM) < 0.9:
        return None
    what = f"{typical:,.1f} eV/atom away from the model's energies: another quantity, unit or zero of energy"
    return Trouble("foreign", what, remedy)


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Slope through the origin and its standard error; pairs far off the line are left out once."""
    for _ in range(3):
        norm = float(x @ x)
        if norm <= 0:
            return 0.0, np.inf
        slope = float(x @ y) / norm
        rest = np.abs(y - slope * x)
        keep = rest <= 5 * np.median(rest) + 1e-12
        if keep.all():
            break
        x, y = x[keep], y[keep]
    return slope, float(np.sqrt(np.mean(rest**2) / max(norm, 1e-300)))


def _left_out(design: Array, values: Array) -> Array | None:
    """What is left of columns after a linear fit that has not used the row; NaN where the row alone decides it.

    Rows that the fit misses by far are left out of it, up to a fifth of them. None where too few rows can tell.
    """
    used = np.arange(len(design))
    for last in (False, False, False, True):
        basis = _basis(design[used])
        leverage = np.einsum("ij,ij->i", basis, basis)
        rest = values[used] - basis @ (basis.T @ values[used])
        size = np.abs(rest[:, 0])
        near = size <= 6 * np.median(size) + 1e-9
        if last or near.all() or near.sum() < 0.8 * len(design):
            break
        used = used[near]
    can_tell = leverage < _LEVERAGE
    if can_tell.sum() < MINIMUM_ROWS:
        return None
    out = np.full(values.shape, np.nan)
    out[used[can_tell]] = rest[can_tell] / (1 - leverage[can_tell, None])
    return out


def _basis(design: Array) -> Array:
    """Orthonormal columns that span those of a matrix without full rank."""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    return np.asarray(u[:, s > 1e-9 * s[0]])
