"""The corrections with which the Materials Project makes energies of GGA, GGA+U and gases comparable (MP2020)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.structures import OXYGEN_BONDS, PLAIN_OXIDE

if TYPE_CHECKING:
    from pymatgen.core import Composition

Array = NDArray[np.float64]

HUBBARD_EV = {"Co": 3.32, "Cr": 3.7, "Fe": 5.3, "Mn": 3.9, "Mo": 4.38, "Ni": 6.2, "V": 3.25, "W": 6.2}
"""U of the Materials Project (MPRelaxSet), for oxides and fluorides of these metals."""


@dataclass(frozen=True, eq=False)
class Corrections:
    """Corrections of m structures."""

    ev_per_atom: Array  # shape (m,): NaN where there is none
    # by name of the correction, shape (m,) each: standard deviation, eV/atom, of what all structures with it share
    shared: Mapping[str, Array]
    reasons: tuple[str | None, ...]  # why a structure has none

    def draws(self, n: int, seed: int) -> Array:
        """Errors of the corrections, one number for each name and draw, shape (n, m), eV/atom."""
        random = np.random.default_rng([seed, 2020])
        out = np.zeros((n, len(self.ev_per_atom)))
        for name in sorted(self.shared):
            out += random.standard_normal((n, 1)) * self.shared[name]
        return out


def no_corrections(m: int) -> Corrections:
    """Zeros, for energies that need none."""
    return Corrections(np.zeros(m), {}, (None,) * m)


def metals_by_hubbard(
    composition: Composition, run_type: str | None
) -> tuple[frozenset[str], frozenset[str]]:
    """Metals of a structure whose energies are with U and without it, of those that the Materials Project gives one.

    ``run_type``: ``GGA`` or ``GGA+U``; where it is not known, what the Materials Project would run.
    """
    symbols = {element.symbol for element in composition.elements}
    metals = frozenset(symbols & set(HUBBARD_EV))
    with_u = run_type == "GGA+U" if run_type else not symbols.isdisjoint({"O", "F"})
    return (metals, frozenset()) if with_u else (frozenset(), metals)


def oxide_types_of(flags: Iterable[Iterable[str]]) -> list[str | None]:
    """Kind of oxide of each structure by the flags that reading gave it; None where they do not say."""
    out: list[str | None] = []
    for row in flags:
        kinds = [flag for flag in row if flag in OXYGEN_BONDS]
        out.append(kinds[0] if kinds else "oxide" if PLAIN_OXIDE in row else None)
    return out


def mp2020_corrections(
    formulas: Sequence[str], run_types: Sequence[str | None], oxide_types: Sequence[str | None]
) -> Corrections:
    """Corrections of MaterialsProject2020Compatibility for uncorrected PBE(+U) energies.

    Parameters
    ----------
    formulas : sequence of str, shape (m,)
        Of the cells.
    run_types : sequence of str or None, shape (m,)
        ``GGA`` or ``GGA+U``; where it is not known, what the Materials Project would run.
    oxide_types : sequence of str or None, shape (m,)
        ``oxide``, ``peroxide``, ``superoxide`` or ``ozonide`` (:func:`oxide_types_of`); None: by the formula alone.

    Returns
    -------
    Corrections

    References
    ----------
    Wang et al., Sci. Rep. 11, 15496 (2021); their uncertainties belong to anions and metals, so that all entries with
    one share its error.
    """
    from pymatgen.core import Composition

    m = len(formulas)
    values, reasons = np.full(m, np.nan), list[str | None]()
    shared: dict[str, Array] = {}
    known: dict[tuple[Any, ...], Any] = {}
    run_types = [kind if isinstance(kind, str) and kind else None for kind in run_types]  # NaN from tables
    for k, (formula, run_type, oxide_type) in enumerate(zip(formulas, run_types, oxide_types, strict=True)):
        key = (formula, run_type, oxide_type)
        if key not in known:
            known[key] = _adjustments(Composition(formula), run_type, oxide_type)
        found = known[key]
        if isinstance(found, str):
            reasons.append(found)
            continue
        reasons.append(None)
        n_atoms = Composition(formula).num_atoms
        values[k] = sum(value for _, value, _ in found) / n_atoms
        for name, _, uncertainty in found:
            shared.setdefault(name, np.zeros(m))[k] += uncertainty / n_atoms
    return Corrections(values, shared, tuple(reasons))


def _adjustments(
    composition: Composition, run_type: str | None, oxide_type: str | None
) -> list[tuple[str, float, float]] | str:
    """Name, value and uncertainty of each correction of a cell, eV; or why there are none."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

    symbols = {element.symbol for element in composition.elements}
    metals = symbols & set(HUBBARD_EV) if symbols & {"O", "F"} else set()
    run_type = run_type or ("GGA+U" if metals else "GGA")
    u = {symbol: HUBBARD_EV[symbol] for symbol in metals} if run_type == "GGA+U" else {}
    parameters = {"run_type": run_type, "is_hubbard": bool(u), "hubbards": u, "software": "vasp"}
    data = {} if oxide_type is None else {"oxide_type": oxide_type}
    entry = ComputedEntry(composition, 0.0, parameters=parameters, data=data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = MaterialsProject2020Compatibility(check_potcar=False).process_entry(entry, on_error="ignore")
    if done is None:
        return (
            f"MP2020 has no correction for a {run_type} energy of this composition; give energies of the Materials "
            "Project's settings, or leave corrections out (--no-corrections)."
        )
    return [
        (str(part.name), float(part.value), 0.0 if np.isnan(part.uncertainty) else float(part.uncertainty))
        for part in done.energy_adjustments
    ]
