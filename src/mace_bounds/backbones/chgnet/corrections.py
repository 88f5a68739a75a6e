"""Corrections of the Materials Project's scheme of 2020 (MP2020), which CHGNet's energies contain."""

from __future__ import annotations

import hashlib
import json
import warnings
from functools import lru_cache
from typing import Any

from mace_bounds.errors import ModelError, StructureError
from mace_bounds.structures import Crystal

_O, _S = 8, 16
_WITHOUT_ELECTRONEGATIVITY = {2: "He", 10: "Ne", 18: "Ar"}
_NUMBERS_SHA256 = "b70e504783eb222bc90806317fca697da48bbffa76175fc09df709b46328505d"
_OXIDE_CUTOFF = 1.05  # relative, as MaterialsProject2020Compatibility has it


def mp2020_correction_ev(crystal: Crystal) -> float:
    """MP2020 correction of the energy of a cell: E_corrected - E_uncorrected, as pymatgen computes it.

    The calculation is taken for one with the settings of the Materials Project: +U on V, Cr, Mn, Fe, Co, Ni, Mo and W
    where oxygen or fluorine is the most electronegative element. What is an anion is decided as it was when MPtrj was
    made (``strict_anions="no_check"``), from oxidation states guessed for the reduced formula; kinds of oxide and
    sulfide from distances.

    Parameters
    ----------
    crystal : Crystal

    Returns
    -------
    float
        eV for the cell; 0 for an element.

    Raises
    ------
    StructureError
        If the scheme does not say what the correction is.

    References
    ----------
    Wang et al., Sci Rep 11, 15496 (2021), doi:10.1038/s41598-021-94550-5.
    """
    counts = crystal.counts
    if len(counts) == 1:
        return 0.0
    odd = [symbol for z, symbol in _WITHOUT_ELECTRONEGATIVITY.items() if z in counts]
    if odd:
        raise StructureError(
            f"the MP2020 corrections, which the model's energies contain, are not defined for compounds of "
            f"{', '.join(odd)}; use another model."
        )
    formula_units, reduced = _reduced(tuple(counts.items()))
    oxide = sulfide = None
    if _O in counts or _S in counts:
        oxide, sulfide = _kinds(crystal)
    return formula_units * _per_formula_unit_ev(reduced, oxide, sulfide)


@lru_cache(maxsize=65536)
def _reduced(counts: tuple[tuple[int, int], ...]) -> tuple[int, tuple[tuple[int, int], ...]]:
    from math import gcd

    units = gcd(*(n for _, n in counts))
    return units, tuple((z, n // units) for z, n in counts)


def _kinds(crystal: Crystal) -> tuple[str | None, str | None]:
    """Kind of oxide (oxide, peroxide, ...) and of sulfide, None where it is none, by pymatgen from distances."""
    from pymatgen.analysis.structure_analyzer import oxide_type, sulfide_type

    structure = crystal.to_structure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oxide = oxide_type(structure, _OXIDE_CUTOFF) if _O in crystal.counts else None
        sulfide = sulfide_type(structure) if _S in crystal.counts else None
    return oxide, sulfide


@lru_cache(maxsize=1)
def _scheme() -> Any:
    """The scheme with the numbers that it had when MPtrj was made; ModelError where pymatgen has others."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    scheme = MaterialsProject2020Compatibility(check_potcar=False, strict_anions="no_check")
    hubbards = {anion: scheme.u_settings[anion] for anion in ("O", "F")}
    numbers = json.dumps([scheme.comp_correction, scheme.u_corrections, hubbards], sort_keys=True)
    if hashlib.sha256(numbers.encode()).hexdigest() != _NUMBERS_SHA256:
        raise ModelError(
            "the MP2020 corrections of the installed pymatgen are not those that CHGNet was trained with; install "
            "another version of pymatgen."
        )
    return scheme


@lru_cache(maxsize=65536)
def _per_formula_unit_ev(
    counts: tuple[tuple[int, int], ...], oxide: str | None, sulfide: str | None
) -> float:
    from pymatgen.core import Composition, Element
    from pymatgen.entries.computed_entries import ComputedEntry

    scheme = _scheme()
    elements = {Element.from_Z(z): n for z, n in counts}
    hubbards = scheme.u_settings.get(max(elements, key=lambda element: element.X).symbol, {})
    # a type that is empty would be determined again; that of a sulfate is none that has a correction
    kinds = {"oxide_type": oxide, "sulfide_type": sulfide or "sulfate"}
    entry = ComputedEntry(
        Composition(elements),
        0.0,
        parameters={
            "run_type": "GGA+U" if hubbards else "GGA",
            "hubbards": {e.symbol: hubbards[e.symbol] for e in elements if e.symbol in hubbards},
            "software": "other",  # there are no pseudopotentials to look at
        },
        data={name: kind for name, kind in kinds.items() if kind is not None},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oxidation states that cannot be guessed have a rule of their own
        return float(sum(adjustment.value for adjustment in scheme.get_adjustments(entry)))
