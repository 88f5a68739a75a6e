"""Flags of rows: what a user should know of a structure beside its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flag:
    """Something that a user should know of a row.

    Attributes
    ----------
    name : str
        As it stands in the column ``flags``.
    meaning : str
        One clause for people.
    """

    name: str
    meaning: str


REFIT = "refit_energy"
"""The flag of every row of a head of one chemistry."""

FLAGS = {
    flag.name: flag
    for flag in (
        Flag("extrapolates", "far from the head's data; the stated coverage was not measured there"),
        Flag("unseen_element", "holds an element that the head has not been fitted on"),
        Flag(
            "unusual_energy",
            "the model's energy is beyond all that it gave for the crystals of the head's data",
        ),
        Flag(
            "no_useful_bound",
            "its bounds are wider than all energies in the head's data differ: they say nothing",
        ),
        Flag(
            REFIT,
            "the head is of one chemistry: the energy is that of the refitted readout (`energy_expected_ev`), relative "
            "to the reference that the head's card names",
        ),
        Flag(
            "unknown_family",
            "its `source` names no family that the head of one chemistry was fitted to; its interval is the one that "
            "held for families left out of the fit, the envelope (`support_lower`, `support_upper`) holds more",
        ),
        Flag("unseen_pair", "two of its elements never met in a structure that the head was fitted on"),
        Flag(
            "in_training",
            "its composition was in the model's own training, where errors are smaller as a rule",
        ),
        Flag(
            "suspect_label",
            "its label is so far from the model's energy that it is probably another quantity",
        ),
        Flag("label_refused", "its label was not used; the column `label_reason` says why and what to do"),
        Flag(
            "difference_not_calibrated",
            "too few differences of its kind were among the head's data, so its interval is that of independent errors",
        ),
        Flag(
            "mixed_hubbard",
            "takes energies of a metal with U from those without: only corrected energies can be compared so, and the "
            "bounds are of the difference as it is",
        ),
        Flag("hull_guarded", "flagged phases that were kept from shaping the hull would change its distance"),
        Flag(
            "hull_incomplete",
            "no phase of one of its elements alone is among the competing phases: with all of them it may be farther "
            "from the hull",
        ),
        Flag("duplicate_id", "another structure of the source has the same id, so a number was added to it"),
        Flag("charged_cell", "its source gives the cell a charge: the energy is that of no neutral crystal"),
        Flag("isolated_atoms", "holds an atom without a neighbour within 6 Å"),
        Flag(
            "close_atoms",
            "two atoms are closer than half the sum of their covalent radii; check the structure",
        ),
        Flag("vacuum", "a slab, wire or molecule in a box; the bounds were measured on dense crystals"),
        *(
            Flag(kind, f"a {kind} by the distances of its oxygen atoms; MP2020 has a correction for it")
            for kind in ("peroxide", "superoxide")
        ),
        Flag("ozonide", "an ozonide by the distances of its oxygen atoms; MP2020 has a correction for it"),
        Flag(
            "plain_oxide",
            "has the composition of a peroxide or superoxide, but no bonds between oxygen atoms",
        ),
        Flag("yb_3_potential", "holds Yb, for which the Materials Project changed its pseudopotential"),
        Flag("licence_by_nc", "comes under a licence that excludes commercial use"),
        Flag("symmetry_assumed", "its CIF leaves its symmetry open; P1 or the standard setting was assumed"),
        Flag("sites_left_out", "its CIF has dummy sites or sites without coordinates, which were left out"),
        Flag(
            "magnetic",
            "holds Cr, Mn, Fe, Co, Ni or an f element, or is oxygen: its properties depend on a magnetic state that "
            "nobody gave",
        ),
        Flag("deuterium_as_hydrogen", "deuterium or tritium was counted as hydrogen"),
    )
}
"""Every flag by its name."""


def flag_names(flags: Any) -> list[str]:
    """Flags of one row from its text ``"a;b"``; none for an empty or missing one."""
    return [flag for flag in flags.split(";") if flag] if isinstance(flags, str) else []
