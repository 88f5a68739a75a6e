"""What a CIF says of its own contents, compared with what was read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from ase.data import atomic_masses, atomic_numbers, covalent_radii

from mace_bounds.structures.formats.cif.grammar import Block, optional_number, quote
from mace_bounds.structures.formats.cif.sites import SYMBOLS, WATER

_MAX_READINGS = 16
_VOLUME_TOLERANCE, _DENSITY_TOLERANCE = 0.01, 0.04
_GAS = (
    20.0  # volume of a crystal over that of its atoms; about 2 in dense ones, 12 in the most open frameworks
)
_DALTON_G_PER_CM3 = 1.66053907

Counts = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """One way to read a block: element counts of the cell, copies of each site, number of operations, volume."""

    counts: Mapping[str, int]
    labels: Sequence[str]
    rows: Sequence[int]
    copies: Sequence[int]
    n_operations: int
    volume: float


def hydrogen_is_one(counts: Mapping[str, float]) -> Counts:
    """Return counts with deuterium and tritium counted as hydrogen."""
    result: Counts = {}
    for symbol, n in counts.items():
        key = "H" if symbol in ("D", "T") else symbol
        result[key] = result.get(key, 0) + n
    return result


@lru_cache(maxsize=4096)
def formulas(text: str) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Return all ways to read a formula (``"Cl H4 N"``, ``"LaB6"``, ``"CL1 NA1"``); none if it is no plain one."""
    parts = []
    for token in text.replace(",", " ").split():
        readings = _token(token)
        if not readings:
            return _with_parentheses(text)
        parts.append(readings)
        if len(parts) > 60 or np.prod([len(p) for p in parts]) > _MAX_READINGS:
            return ()
    found = []
    for combination in product(*parts):
        counts: Counts = {}
        for piece in combination:
            for symbol, n in piece:
                counts[symbol] = counts.get(symbol, 0) + n
        if counts:
            found.append(tuple(hydrogen_is_one(counts).items()))
    return tuple(dict.fromkeys(found))


def _with_parentheses(text: str) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Return the reading of ``"Al2 (S O4)3"``; none for ``"(Mg,Fe)2 SiO4"``."""
    from pymatgen.core import Composition

    if len(text) > 200 or not re.fullmatch(r"[A-Za-z0-9.()\s]+", text):
        return ()
    try:
        counts = Composition(re.sub(r"\s", "", text)).get_el_amt_dict()
    except Exception:  # pymatgen raises several kinds for what is no formula
        return ()
    return (tuple(hydrogen_is_one(counts).items()),) if counts and SYMBOLS.issuperset(counts) else ()


def _token(token: str) -> list[list[tuple[str, float]]]:
    """Return the readings of one word of a formula; the first is the usual one."""
    if re.fullmatch(r"\d*[+-]\d*", token):  # a charge
        return [[]]
    readings = []
    match = re.fullmatch(r"([A-Za-z]{1,2})(\d+\.?\d*|\.\d+)?", token)
    if match and match[1].capitalize() in SYMBOLS:  # CL4, or cl4
        readings.append([(match[1].capitalize(), float(match[2] or 1))])
    if match is None or match[1] != match[1].capitalize():
        pieces = list(re.finditer(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?", token))
        if "".join(m[0] for m in pieces) == token and all(m[1] in SYMBOLS for m in pieces) and pieces:
            readings.append([(m[1], float(m[2] or 1)) for m in pieces])
    return readings


def formula_text(block: Block) -> str:
    """Return the formula that a block states."""
    return block.value("_chemical_formula_sum", "_chemical_formula", "_chemical_formula_structural")


def elements_named(block: Block) -> frozenset[str]:
    """Return the elements that formula or list of atom types name, with isotopes of hydrogen; empty for none."""
    named = {symbol for formula in formulas(formula_text(block)) for symbol, _ in formula}
    if not named:
        for text in block.column("_atom_type_symbol"):
            match = re.match(r"\d*([A-Za-z]{1,2})", text)
            symbol = match[1].capitalize() if match else ""
            named |= {
                s for s in (symbol, symbol[:1]) if s in SYMBOLS and (s == symbol or symbol not in SYMBOLS)
            }
    return frozenset(named | {"D", "T"} if "H" in named else named)


def contradiction(block: Block, reading: Reading) -> str | None:
    """Return a sentence on the first thing that a block says of itself and that the reading is not, else None."""
    return (
        _formula_contradiction(block, reading)
        or _volume_contradiction(block, reading)
        or _multiplicity_contradiction(block, reading)
        or _hydrogen_contradiction(block, reading)
        or _density_contradiction(block, reading)
    )


def _written(counts: Mapping[str, float]) -> str:
    return " ".join(f"{symbol}{n:g}" for symbol, n in sorted(counts.items()))


def _formula_contradiction(block: Block, reading: Reading) -> str | None:
    readings = [dict(formula) for formula in formulas(formula_text(block))]
    if not readings:
        return None
    counts = hydrogen_is_one(reading.counts)
    z = optional_number(block, "_cell_formula_units_z")
    if any(_agrees(counts, formula, z, reading.volume) for formula in readings):
        return None
    formula = readings[0]
    missing = sorted(set(formula) - set(counts))
    if missing == ["H"]:
        return (
            f"the formula {quote(formula_text(block), 60)} has hydrogen, but the CIF has no positions of it; add the "
            "hydrogen atoms."
        )
    times = f" with Z = {z:g}" if z else ""
    return (
        f"the formula {quote(formula_text(block), 60)}{times} is not what the sites give ({_written(counts)} in the "
        "cell); correct formula, Z, symmetry or sites."
    )


def _agrees(counts: Counts, formula: Counts, z: float | None, volume: float) -> bool:
    if counts.keys() != {symbol for symbol, n in formula.items() if n > 0}:
        return False
    symbols = list(counts)
    have, want = np.array([counts[s] for s in symbols]), np.array([formula[s] for s in symbols])

    def equal(factor: float) -> bool:
        return bool(np.all(np.abs(have - factor * want) <= np.maximum(0.01 * have, 0.05)))

    if z and z > 0:
        if equal(z):
            return True
        divisor = np.gcd.reduce(have.astype(np.int64))  # pymatgen writes the cell's formula with its Z
        if equal(1.0) and divisor == z:
            return True
    ratio = have.sum() / want.sum()
    whole = ratio > 0.99 and abs(ratio - round(ratio)) < 0.02 * ratio and equal(round(ratio))
    return whole and (not z or (ratio > z and volume > z * _too_thin(formula)))


def _too_thin(formula: Counts) -> float:
    """Return the volume, Å³, beyond which a formula unit would be a gas: a stated Z that says so is a slip."""
    spheres = sum(n * float(covalent_radii[atomic_numbers[s]]) ** 3 for s, n in formula.items())
    return _GAS * 4 / 3 * np.pi * spheres


def _volume_contradiction(block: Block, reading: Reading) -> str | None:
    stated = optional_number(block, "_cell_volume")
    if not stated or abs(stated / reading.volume - 1) <= _VOLUME_TOLERANCE:
        return None
    return f"_cell_volume says {stated:.5g} Å³, but lengths and angles give {reading.volume:.5g} Å³; correct the cell."


def _multiplicity_contradiction(block: Block, reading: Reading) -> str | None:
    texts = block.column("_atom_site_site_symmetry_multiplicity", "_atom_site_symmetry_multiplicity")
    if not texts:
        return None
    stated = []
    for row, copies, label in zip(reading.rows, reading.copies, reading.labels, strict=True):
        text = texts[row] if row < len(texts) else ""
        if text.isdecimal() and int(text) < 10_000:
            stated.append((int(text), copies, label))
    wrong = [item for item in stated if item[0] != item[1]]
    if not wrong or all(
        n * copies == reading.n_operations for n, copies, _ in stated
    ):  # SHELX's site symmetry order
        return None
    n, copies, label = wrong[0]
    return (
        f"the CIF says that site {quote(label)} has the multiplicity {n}, but its symmetry gives {copies}; correct the "
        "symmetry or the site."
    )


def _hydrogen_contradiction(block: Block, reading: Reading) -> str | None:
    if formulas(formula_text(block)):
        return None  # the formula has been compared
    attached, types = block.column("_atom_site_attached_hydrogens"), block.column("_atom_site_type_symbol")
    dry = "H" not in hydrogen_is_one(reading.counts)
    for row, label in zip(reading.rows, reading.labels, strict=True):
        text = attached[row] if row < len(attached) else ""
        if text.isdecimal() and int(text) > 0:
            return f"site {quote(label)} has attached hydrogens without positions; add the hydrogen atoms."
        kind = types[row] if row < len(types) else ""
        if dry and (WATER.match(label) or WATER.match(kind)):
            return f"site {quote(label)} is water or hydroxyl, but the CIF has no hydrogen; add the hydrogen atoms."
    return None


def _density_contradiction(block: Block, reading: Reading) -> str | None:
    if formulas(formula_text(block)) and optional_number(block, "_cell_formula_units_z"):
        return None  # formula and Z agree
    stated = optional_number(block, "_exptl_crystal_density_diffrn")
    if not stated or stated <= 0:
        return None
    isotopes = {"D": 2.014, "T": 3.016}
    mass = sum(
        n * (isotopes.get(s) or float(atomic_masses[atomic_numbers[s]])) for s, n in reading.counts.items()
    )
    density = mass * _DALTON_G_PER_CM3 / reading.volume
    stated = stated / 1000 if stated > 100 else stated  # in kg/m³
    if abs(stated / density - 1) <= _DENSITY_TOLERANCE:
        return None
    return (
        f"the CIF says that its density is {stated:.3g} g/cm³, but cell and sites give {density:.3g}; check the "
        "symmetry and missing atoms."
    )
