"""The label guard: only uncorrected PBE(+U) total energies are comparable with the model's energy.

MACE-MPA-0 was trained on the uncorrected PBE or PBE+U total energy of the same calculation as the geometry.
Corrected energies, other functionals and energies per atom are other quantities (0.1 to 25 eV/atom away).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mace_bounds.errors import LabelError, StructureError
from mace_bounds.structures.text import as_mapping, clean

TOTAL_ENERGY = "uncorrected PBE(+U) total energy"
"""The quantity of labels, and of what a head bounds, where nothing else is said."""

_LONGEST_QUANTITY = 120
_SUSPECT_EV_PER_ATOM = 3.0

DEFAULT_ENERGY_KEYS = ("REF_energy", "dft_energy", "energy")
"""Keys tried for a label where the user names none; ``free_energy`` holds smearing entropy: left out."""

HULL_KEYS = (
    "energy_above_hull",
    "e_above_hull",
    "hull_distance_ev_per_atom",
    "e_above_hull_mp2020_corrected_ppd_mp",
)
"""Keys of the distance from the hull, eV/atom; the last one is WBM's."""

REFUSED = "label_refused"
"""Key in an entry's ``data``: one sentence why its energy is no label."""

CHARGED = "charged_cell"
CHARGE_KEYS = ("charge", "total_charge", "tot_charge", "cell_charge")
"""Keys of the charge of a cell, in units of e."""

_SINGLE_ATOMS = {"isolatedatom", "isolatedatoms", "singleatom", "freeatom"}
_ENERGY_LIKE = re.compile(
    r"^(?!.*(free_e|fermi|kinetic|band|cut)).*(energy|toten|^e_?(dft|tot|vasp|pbe|qe)|^e0$|_e$)",
    re.IGNORECASE,
)
_COMPARABLE = {"GGA", "GGA+U", "PBE", "PBE+U"}
_COMPARABLE_THERMO = {"GGA_GGA+U", "GGA_GGA_U"} | _COMPARABLE
_INCAR_KEYS = ("METAGGA", "metagga", "GGA")
_FUNCTIONAL_KEYS = ("functional", "xc", "xc_functional", "dft_functional", *_INCAR_KEYS)
_NOT_SET = ("", "T", "TRUE", "F", "FALSE", "NONE", "--")
_UNIT_KEY = re.compile(
    r"(units?|(energy|length|position|pos|cell)_?units?|units?_(energy|length))", re.IGNORECASE
)
_NO_EV = re.compile(r"hartree|rydberg|kcal|kj|\b(ha|ry|a\.?u|mev|real|atomic)\b", re.IGNORECASE)
_NO_ANGSTROM = re.compile(r"bohr|nanom|picom|\b(nm|pm|a\.?u|atomic)\b", re.IGNORECASE)
_PBE = re.compile(r"(PAW|GGA)*(PBE|PE|GGA)(GGA)?(52|54)?(\+?U)?", re.IGNORECASE)
_FOREIGN_KEY = re.compile(
    r"(?<!un)corrected|per_?atom|hull|formation|cohesive|atomi[sz]ation|e_form|correction|r2scan|scan|hse"
    r"|hartree|rydberg|kcal|kj_?mol|_(ha|ry|au)$",
    re.IGNORECASE,
)
_ID_RUN_TYPE = re.compile(r"-(GGA\+U|GGA|R2SCAN|SCAN|HSE\w*|PBEsol\w*)$", re.IGNORECASE)


def parse_quantity(text: str) -> str:
    """Bring the name of a quantity into one form: one line, single blanks. ValueError for none, or a longer one.

    Examples
    --------
    >>> parse_quantity(" Uncorrected PBE(+U)  total energy")
    'uncorrected PBE(+U) total energy'
    """
    name = " ".join(text.split())
    if not name.isprintable() or not 1 <= len(name) <= _LONGEST_QUANTITY:
        raise ValueError(
            f"the name of a quantity has 1 to {_LONGEST_QUANTITY} signs, and this one {len(name)}; write "
            "'r2SCAN total energy', for example."
        )
    return TOTAL_ENERGY if name.casefold() == TOTAL_ENERGY.casefold() else name


@dataclass(frozen=True)
class Label:
    """A label, or why the one that the source offers was not taken; all None where it offers none.

    Attributes
    ----------
    energy_ev : float or None
        Total energy of the cell, eV.
    kind : str or None
        What it is, or the key it came from.
    reason : str or None
        Why there is none although the user named a key, or although a key is there.
    """

    energy_ev: float | None = None
    kind: str | None = None
    reason: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Its values under their names in a :class:`~mace_bounds.structures.crystal.Record`."""
        return {"energy_ev": self.energy_ev, "label_kind": self.kind, "label_reason": self.reason}


def guard_energy_key(key: str) -> None:
    """Refuse a key that by its name is no uncorrected total energy.

    Raises
    ------
    LabelError
        For corrected energies, energies per atom, hull distances, formation energies and other functionals.
    """
    if _FOREIGN_KEY.search(key):
        raise LabelError(
            f"the name of the key {clean(key, 60)!r} is that of another quantity; name the key of the uncorrected "
            "PBE(+U) total energy of the cell in eV."
        )


def find_label(
    info: Mapping[str, Any],
    energy_key: str | None,
    *,
    run_type: str | None = None,
    thermo_type: str | None = None,
) -> Label:
    """Look for a label among named values.

    Parameters
    ----------
    info : mapping
        Values by name (text or numbers), for example the comment line of a frame.
    energy_key : str or None
        The key that the user named, else the default keys are tried.
    run_type, thermo_type : str, optional
        What the source says of the calculation; a label of another functional is refused.
    """
    keys = DEFAULT_ENERGY_KEYS if energy_key is None else (energy_key,)
    key = next((k for k in keys if info.get(k) is not None), None)
    if key is None:
        return Label(reason=_other_names(info, energy_key))
    if (why := unlike_a_crystal(info)) is not None:
        return Label(reason=why)
    energy = to_energy(info[key])
    if energy is None:
        return Label(
            reason=f"{clean(info[key], 40)!r} under {clean(key, 60)!r} is no finite energy in eV; correct the source."
        )
    try:
        require_known_functional(run_type, thermo_type)
        require_pbe(stated_functional(info))
        _require_ev(info)
    except LabelError as error:
        return Label(reason=str(error))
    return Label(energy, clean(key, 60))


def unlike_a_crystal(info: Mapping[str, Any]) -> str | None:
    """Return why the energy of these named values is none of a neutral crystal: a charge, a single atom; else None."""
    if charge_flags(info):
        charge = next(c for key in CHARGE_KEYS if (c := to_energy(info.get(key))))
        return (
            f"the cell is charged ({charge:+g}), and its energy is that of no crystal; take the neutral cell."
        )
    if str(info.get("config_type") or "").replace("_", "").lower() in _SINGLE_ATOMS:
        return (
            "by its config_type it is an isolated atom, a reference of energies and no crystal; leave it out."
        )
    return None


def charge_flags(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return ``("charged_cell",)`` where a key says that the cell has a charge."""
    return (CHARGED,) if any(to_energy(info.get(key)) for key in CHARGE_KEYS) else ()


def _other_names(info: Mapping[str, Any], energy_key: str | None) -> str | None:
    """Name the keys that may hold the energy where none is under the wanted one; None where nothing was wanted."""
    found = [
        clean(key, 60)
        for key, value in info.items()
        if _ENERGY_LIKE.search(str(key))
        and not _FOREIGN_KEY.search(str(key))
        and to_energy(value) is not None
    ]
    there = ", ".join(found[:6])
    if energy_key is not None:
        other = (
            f"; it has {there}: correct --energy-key."
            if found
            else " and none like an energy; check --energy-key."
        )
        return f"the structure has no key {clean(energy_key, 60)!r}{other}"
    if not found:
        return None
    return f"found {there}, none of the usual keys; name the one of the DFT energy (--energy-key {found[0]})."


def hull_distance(info: Mapping[str, Any]) -> float | None:
    """Return the distance from the hull, eV/atom, under the first of :data:`HULL_KEYS` that holds a finite number."""
    return next((value for key in HULL_KEYS if (value := to_energy(info.get(key))) is not None), None)


def to_energy(value: Any) -> float | None:
    """Return the value as a finite float, or None if it is no number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        energy = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return energy if math.isfinite(energy) else None


def require_known_functional(run_type: str | None, thermo_type: str | None = None) -> None:
    """Refuse labels whose source says that they are not PBE or PBE+U.

    Raises
    ------
    LabelError
        For r2SCAN, SCAN, hybrid, mixed and every other run or thermo type; silence passes.
    """
    for what, value, known in (
        ("run type", run_type, _COMPARABLE),
        ("thermo type", thermo_type, _COMPARABLE_THERMO),
    ):
        if value is not None and canonical(value) not in known:
            raise LabelError(
                f"the {what} is {clean(value, 40)!r}, not GGA or GGA+U; take structure and uncorrected energy of the "
                "same GGA_GGA+U entry."
            )


def stated_functional(*places: Mapping[str, Any]) -> str | None:
    """Return the functional that the first of these named values states in words, else None."""
    for place in places:
        for key in _FUNCTIONAL_KEYS:
            value = place.get(key)
            not_set = ("",) if key not in _INCAR_KEYS else _NOT_SET
            if isinstance(value, str) and value.strip().upper() not in not_set:
                return value
    return None


def _require_ev(info: Mapping[str, Any]) -> None:
    """Refuse a label beside which another unit of energy stands, by :class:`LabelError`."""
    if (unit := _stated_unit(info, _NO_EV)) is not None:
        raise LabelError(f"{unit} stands beside its energy, which is wanted in eV; convert it.")


def require_angstrom(info: Mapping[str, Any]) -> None:
    """Refuse a structure beside which another unit of length stands.

    Raises
    ------
    StructureError
        Where a key of units names bohr, nanometres or picometres.
    """
    if (unit := _stated_unit(info, _NO_ANGSTROM)) is not None:
        raise StructureError(
            f"{unit} stands beside its cell, which is wanted in Å; convert cell and positions."
        )


def _stated_unit(info: Mapping[str, Any], other: re.Pattern[str]) -> str | None:
    """Return ``KEY = VALUE`` of the first key of units whose value names one of these."""
    for key, value in info.items():
        if isinstance(value, str) and _UNIT_KEY.fullmatch(str(key)) and other.search(value):
            return f"{clean(key, 30)} = {clean(value, 40)}"
    return None


def require_pbe(functional: str | None) -> None:
    """Refuse a label whose source states another functional than PBE or PBE+U, by :class:`LabelError`."""
    if functional is not None and not _PBE.fullmatch(re.sub(r"[\s_/().-]", "", functional)):
        raise LabelError(
            f"its functional is {clean(functional, 40)!r}, not PBE or PBE+U; take the energy of a PBE calculation."
        )


def guard_label(
    energy_ev: Any,
    *,
    run_type: str | None = None,
    thermo_type: str | None = None,
    functional: str | None = None,
) -> tuple[float, str]:
    """Return the energy of an entry and its kind, if it is an uncorrected PBE(+U) energy.

    Parameters
    ----------
    energy_ev : number
        Uncorrected total energy of the cell, eV.
    run_type, thermo_type : str, optional
        What the source says (``"GGA+U"``, ``"GGA_GGA+U"``).
    functional : str, optional
        The functional of the pseudopotentials (``"PBE"``, ``"PBE_54"``).

    Returns
    -------
    energy_ev : float
        The label, eV.
    label_kind : str
        For example ``"uncorrected GGA+U"``.

    Raises
    ------
    LabelError
        If the energy is another quantity or no finite number.
    """
    require_known_functional(run_type, thermo_type)
    if functional is not None and not _is_pbe(functional):
        raise LabelError(
            f"the pseudopotentials are of {clean(functional, 40)!r}, not of PBE; take the entry's PBE calculation."
        )
    energy = to_energy(energy_ev)
    if energy is None:
        raise LabelError(f"{clean(energy_ev, 40)!r} is no finite energy in eV; correct the source's energy.")
    return energy, f"uncorrected {clean(run_type, 40)}" if run_type else "uncorrected, run type not stated"


def run_type_of(parameters: Mapping[str, Any], data: Mapping[str, Any], entry_id: str) -> str | None:
    """Return the run type that an entry states in its parameters, its data or the end of its id."""
    for place in (parameters, data):
        value = place.get("run_type")
        if isinstance(value, str) and value:
            return value
    match = _ID_RUN_TYPE.search(entry_id)
    return match[1] if match else None


def licence_flags(name: str, licence: object = None) -> tuple[str, ...]:
    """Return ``("licence_by_nc",)`` where id or licence say that commercial use is excluded."""
    text = str(licence or "").upper().replace("_", "-").replace(" ", "-")
    non_commercial = name.lower().startswith("gnome") or "BY-NC" in text
    return ("licence_by_nc",) if non_commercial else ()


def ytterbium_flags(name: str, numbers: Sequence[int], potentials: Sequence[str]) -> tuple[str, ...]:
    """Flag Materials Project entries with Yb: their potential changed from Yb_2 to Yb_3 after training."""
    if 70 not in numbers or any("Yb_2" in str(p) for p in potentials):
        return ()
    from_mp = name.startswith(("mp-", "mvc-")) or any("Yb_3" in str(p) for p in potentials)
    return ("yb_3_potential",) if from_mp else ()


def functional_of(parameters: Mapping[str, Any]) -> str | None:
    """Return the functional of the pseudopotentials (``"PBE"``) where an entry's parameters name them."""
    stated = as_mapping(parameters.get("pseudo_potential")).get("functional")
    if stated:
        return str(stated)
    titles = [title.split()[0] for title in potential_titles(parameters) if title.startswith("PAW")]
    kinds = {title.removeprefix("PAW").removeprefix("_") or "LDA" for title in titles}
    return next(iter(sorted(kinds - {"PBE"})), "PBE") if kinds else None


def potential_titles(parameters: Mapping[str, Any]) -> list[str]:
    """Return the titles of the pseudopotentials (``"PAW_PBE Yb_3 08Jul2013"``) in an entry's parameters."""
    specs = parameters.get("potcar_spec")
    return [str(as_mapping(spec).get("titel") or "") for spec in specs] if isinstance(specs, list) else []


def suspect_label(residual_ev_per_atom: float) -> bool:
    """Tell whether a label is so far from the model that it is rather another quantity than an error.

    Parameters
    ----------
    residual_ev_per_atom : float
        (E_label - E_model) / n_atoms, eV/atom; beyond 3 eV/atom, and NaN, are suspect.
    """
    return not abs(residual_ev_per_atom) <= _SUSPECT_EV_PER_ATOM


def canonical(text: str) -> str:
    """Return a run or thermo type in one spelling (``"gga_u"`` is ``"GGA+U"``)."""
    upper = text.strip().upper()
    return upper.replace("GGA_U", "GGA+U").replace("PBE_U", "PBE+U")


def _is_pbe(functional: str) -> bool:
    return re.match(r"PBE(?!SOL|0|_SOL)", functional.strip(), re.IGNORECASE) is not None
