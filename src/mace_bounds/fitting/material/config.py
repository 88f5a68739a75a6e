"""How a head of one chemistry is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from mace_bounds.errors import HeadError
from mace_bounds.fitting.material.derivatives import FORCES, STRESS
from mace_bounds.settings import check_settings, setting

ENERGIES = "energies"


@dataclass(frozen=True)
class MaterialConfig:
    """How a head of one chemistry is fitted.

    Attributes
    ----------
    seed : int
        Of splits and folds, which go by the hashes of frames' ids.
    test_share : float
        Share of the frames that take no part and measure the head.
    n_folds : int
        Folds of frames, each left out once, whose errors calibrate the intervals.
    energy_weight, forces_weight, stress_weight : float
        Weights of the three kinds of rows, after each is divided by its root mean square residual.
    atoms_per_family : int
        Of every family frames with about so many atoms give rows of forces and stress; 0 fits energies alone.
    without : str
        Families, with commas between, that take no part in the fit and are measured with the rest that did not: what
        the head says of them, and of properties that are compared with them, it has not seen.
    shift_ev_per_atom : float
        Added to every energy, so that it is relative to another reference.
    reference : str
        What energies are then relative to, in words.
    """

    seed: int = setting(0, "Random seed for splits and folds.", minimum=0, maximum=2**32 - 1)
    test_share: float = setting(
        0.2, "Fraction of the frames that only measure the head.", minimum=0.05, maximum=0.5
    )
    n_folds: int = setting(
        5, "Folds of frames whose left-out errors calibrate the intervals.", minimum=2, maximum=50
    )
    energy_weight: float = setting(
        1.0, "Weight of energies, after division by their residual.", minimum=1e-3, maximum=1e3
    )
    forces_weight: float = setting(1.0, "Weight of forces, likewise.", minimum=1e-3, maximum=1e3)
    stress_weight: float = setting(1.0, "Weight of stress, likewise.", minimum=1e-3, maximum=1e3)
    atoms_per_family: int = setting(
        800,
        "Atoms of every family whose forces and stress are used (about 0.1 s each); 0: energies alone.",
        minimum=0,
        maximum=10_000_000,
    )
    without: str = setting(
        "",
        "Families, with commas between, that only measure the head.",
        metavar="FAMILY,FAMILY",
        shown="none",
    )
    shift_ev_per_atom: float = setting(
        0.0, "Added to every energy, eV per atom: another reference.", minimum=-1e6, maximum=1e6
    )
    reference: str = setting(
        "that of the labels", "What energies are relative to, for the card.", metavar="TEXT"
    )

    def __post_init__(self) -> None:
        check_settings(self, HeadError)

    @property
    def left_out(self) -> list[str]:
        """Names of the families that take no part in the fit."""
        return [name.strip() for name in self.without.split(",") if name.strip()]

    def weight(self, kind: str) -> float:
        """Weight of a kind of rows."""
        return {ENERGIES: self.energy_weight, FORCES: self.forces_weight, STRESS: self.stress_weight}[kind]
