"""A property of structures that were read, as a table: a row for every number, and for every structure without one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mace_bounds.columns import PROPERTIES, names
from mace_bounds.errors import MaceBoundsError, SourceError
from mace_bounds.propagation.builders import SHORTEST_A
from mace_bounds.propagation.defects import (
    Relaxation,
    interstitial_formation,
    relaxed_positions,
    surface_energy,
    vacancy_formation,
)
from mace_bounds.propagation.elastic import Ions, elastic_constants
from mace_bounds.propagation.eos import equation_of_state
from mace_bounds.propagation.faults import N_IMAGES, fault_path, gamma_line
from mace_bounds.propagation.measured import MAGNETIC_FLAG, may_be_magnetic
from mace_bounds.propagation.phases import phase_energies
from mace_bounds.propagation.phonons import phonon_frequencies
from mace_bounds.settings import check_settings, setting
from mace_bounds.tables import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from mace_bounds.propagation.measured import MeasuredErrors
    from mace_bounds.propagation.potential import Potential
    from mace_bounds.propagation.result import PropertyBounds
    from mace_bounds.structures import Crystal, Record

PropertyName = Literal[
    "eos", "elastic", "phases", "vacancy", "interstitial", "surface", "fault", "relax", "phonons"
]
"""What :func:`propagate` computes."""


_INDICES = re.compile(r"(-?\d)(-?\d)(-?\d)|(-?\d+)[\s,]+(-?\d+)[\s,]+(-?\d+)")


def parse_indices(text: str) -> tuple[int, int, int]:
    """``"110"``, ``"1-10"``, ``"1,1,0"`` or ``"1 -1 0"`` to three integers; ValueError for anything else."""
    match = _INDICES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no plane or direction; write 110 or 1,-1,0, for example.")
    h, k, el = (int(part) for part in match.groups() if part is not None)
    if (h, k, el) == (0, 0, 0):
        raise ValueError("000 is no plane or direction; write 110 or 1,-1,0, for example.")
    return h, k, el


@dataclass(frozen=True)
class PropagateSettings:
    """How a property is propagated; the command line makes its options from the fields.

    Attributes
    ----------
    n_draws, seed : int
        Draws of the readout weights.
    ions : {"relaxed", "clamped"}
        For elastic constants: whether atoms move under strain.
    method : {"implicit", "resample"}
        For vacancies, surfaces and relaxed positions: the second-order response of the mean's minimum, or every draw
        relaxed by itself.
    miller : (int, int, int)
        Of the surface, or the plane of a fault.
    direction : (int, int, int)
        Of a dumbbell, or in which a fault slips.
    n_images : int
        Parts of the lattice vector by which a fault slips.
    shortest_a : float
        Shortest side of the cell with a vacancy or interstitial, Å.
    repeats : int
        Primitive cells along every vector of the supercell of phonons.
    """

    n_draws: int = setting(1000, "Draws of the readout weights.", minimum=50, maximum=100_000)
    seed: int = setting(0, "Random seed of the draws.", minimum=0, maximum=2**32 - 1)
    ions: Ions = setting(
        "relaxed", "For elastic, fault: whether atoms move under strain or across the fault."
    )
    method: Relaxation = setting(
        "implicit",
        "For vacancy, interstitial, surface, fault, relax: response of the mean's minimum, or every draw relaxed by "
        "itself.",
    )
    miller: tuple[int, int, int] = setting(
        (1, 0, 0),
        "For surface, fault: indices of the plane.",
        metavar="HKL",
        shown="100",
        parser=parse_indices,
    )
    direction: tuple[int, int, int] = setting(
        (0, 1, 1),
        "For interstitial, fault: direction of the dumbbell, or of the slip.",
        metavar="UVW",
        shown="011",
        parser=parse_indices,
    )
    n_images: int = setting(
        N_IMAGES, "For fault: parts of the lattice vector.", minimum=2, maximum=200, option="--images"
    )
    shortest_a: float = setting(
        SHORTEST_A,
        "For vacancy, interstitial: shortest side of the cell, Å.",
        minimum=2,
        maximum=30,
        option="--shortest",
    )
    repeats: int = setting(
        2, "For phonons: primitive cells along each vector of the supercell.", minimum=1, maximum=6
    )

    def __post_init__(self) -> None:
        check_settings(self, SourceError)


def propagate(
    name: PropertyName,
    records: Sequence[Record],
    potential: Potential,
    level: float = 0.95,
    settings: PropagateSettings | None = None,
    *,
    errors: MeasuredErrors | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """Compute a property of structures with its intervals.

    Parameters
    ----------
    name : {"eos", "elastic", "phases", "vacancy", "interstitial", "surface", "fault", "relax", "phonons"}
        ``"phases"`` compares all structures, of one composition, with the first, and ``"fault"`` takes several as
        images of one path; all others take one at a time.
    records : sequence of Record
        As :func:`mace_bounds.read` gives them.
    potential : Potential
    level : float
        Of the intervals.
    settings : PropagateSettings, optional
    errors : MeasuredErrors, optional
        Calibrate intervals by these where they know the property and the kind of crystal.
    progress : callable, optional
        Called with the number of structures that are done and how many of them failed.

    Returns
    -------
    DataFrame
        Columns :data:`mace_bounds.columns.PROPERTIES`; a structure without the property has a row with its ``reason``.

    Raises
    ------
    SourceError
        If the name is no property.
    """
    settings = settings or PropagateSettings()
    if name not in get_args(PropertyName):
        raise SourceError(f"{name!r} is no property; choose one of {', '.join(get_args(PropertyName))}.")
    if name == "phases":
        return _table(_together(records, errors, lambda good: phase_energies(good, potential, level)))
    if name == "fault" and len(records) > 1:
        return _table(
            _together(records, errors, lambda good: fault_path(list(good.values()), potential, level))
        )
    rows: list[dict[str, Any]] = []
    failed = 0

    def of(crystal: Crystal) -> list[PropertyBounds]:
        found = _single(name, crystal, potential, level, settings)
        return found if errors is None else errors.bounded(found, crystal)

    for done, record in enumerate(records, 1):
        found = _rows_of(record, of)
        failed += found[0]["reason"] is not None
        rows += found
        if progress is not None:
            progress(done, failed)
    return _table(rows)


def _single(
    name: PropertyName, crystal: Crystal, potential: Potential, level: float, settings: PropagateSettings
) -> list[PropertyBounds]:
    if name == "eos":
        return equation_of_state(crystal, potential, level)
    if name == "elastic":
        return elastic_constants(crystal, potential, level, settings.ions)
    if name == "phonons":
        return phonon_frequencies(crystal, potential, level, settings.repeats)
    if name == "fault":
        how = settings.method if settings.ions == "relaxed" else "curves"
        plane, images = (settings.miller, settings.direction), settings.n_images
        return gamma_line(crystal, potential, *plane, n_images=images, level=level, method=how)
    method, shortest = settings.method, settings.shortest_a
    if name == "vacancy":
        return vacancy_formation(crystal, potential, level, method, shortest)
    if name == "interstitial":
        return interstitial_formation(crystal, potential, settings.direction, level, method, shortest)
    if name == "surface":
        return surface_energy(crystal, potential, settings.miller, level, method)
    return relaxed_positions(crystal, potential, level, method)


def _together(
    records: Sequence[Record],
    errors: MeasuredErrors | None,
    of: Callable[[dict[str, Crystal]], list[PropertyBounds]],
) -> list[dict[str, Any]]:
    """Rows of a property of all structures at once."""
    bad = [row for record in records if record.crystal is None for row in _rows_of(record, lambda _: [])]
    good = {record.id: record.crystal for record in records if record.crystal is not None}
    if not good:
        return bad
    try:
        found = of(good)
    except MaceBoundsError as error:
        return [*bad, *({"id": id, "formula": c.formula, "reason": str(error)} for id, c in good.items())]
    first = next(iter(good.values()))
    found = found if errors is None else errors.bounded(found, first)
    about = {"id": ", ".join(good), "formula": first.formula, "flags": _flags(first)}
    return [*({**about, **r.to_row(), "reason": None} for r in found), *bad]


def _flags(crystal: Crystal) -> str | None:
    return MAGNETIC_FLAG if may_be_magnetic(crystal) else None


def _rows_of(record: Record, of: Callable[[Crystal], list[PropertyBounds]]) -> list[dict[str, Any]]:
    """Rows of one structure; an error becomes its reason."""
    if record.crystal is None:
        return [{"id": record.id, "formula": None, "reason": record.reason}]
    about = {"id": record.id, "formula": record.crystal.formula, "flags": _flags(record.crystal)}
    try:
        return [{**about, **result.to_row(), "reason": None} for result in of(record.crystal)]
    except MaceBoundsError as error:
        return [{**about, "reason": str(error)}]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return frame({name: [row.get(name) for row in rows] for name in names(PROPERTIES)})
