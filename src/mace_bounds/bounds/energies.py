"""Energies that a user brings, of a model that need not run here: put where the backbone's are, checked by these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.calibration import CalibratedHead
from mace_bounds.errors import LabelError
from mace_bounds.features import FeatureRows, element_counts
from mace_bounds.levels import percent
from mace_bounds.structures import Record, label_trouble, one_line, suspect_label, to_energy

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from ase.calculators.calculator import Calculator

Energies: TypeAlias = (
    "ArrayLike | Mapping[str, float] | Callable[[Atoms], float] | Calculator | GivenEnergies"
)
"""Total energies of cells, eV: one for each structure in order, by id, a function of ``ase.Atoms``, a calculator."""

_SAME_REFERENCE_EV = 0.5
"""Labels whose median is farther from the model, per atom, are relative to something else."""
NO_ENERGY = "no energy was given for this structure; add it under its id or in its place"
ENERGY_REASON = "energy_reason"
"""Column of rows that may be without the energy that is bounded: why they are."""

_WANTED = "it must be the model's total energy of the cell in eV, uncorrected"


class GivenEnergies:
    """Energies of a model, handed out as structures come.

    Parameters
    ----------
    energies : array, mapping, callable or ASE calculator
        Total energies of the cells, eV. An array has one for each structure, in order; a mapping has them by id; a
        callable takes ``ase.Atoms`` and returns one.
    """

    def __init__(self, energies: Any) -> None:
        self._by_id: Mapping[str, Any] | None = None
        self._function: Callable[[Atoms], Any] | None = None
        self._left: deque[Any] | None = None  # of an array, those for which no structure has come yet
        self._labels_stay = self._skips_labelled = False
        if isinstance(energies, Mapping):
            self._by_id = energies
        elif hasattr(energies, "get_potential_energy"):
            self._function = energies.get_potential_energy
        elif callable(energies):
            self._function = energies
        else:
            values = np.atleast_1d(np.asarray(energies, dtype=object))
            if values.ndim != 1:
                raise LabelError(
                    f"energies has the shape {values.shape}; give one total energy for each structure, eV."
                )
            self._left = deque(values.tolist())

    def of_candidates(self) -> GivenEnergies:
        """The same for the candidates of a hull: one that gets no energy may still compete with its label."""
        part = copy(self)
        part._labels_stay = True
        return part

    def of_phases(self, *, labelled: bool) -> GivenEnergies:
        """The same for competing phases; ``labelled``: ask for the energies of those with a label too.

        An array has the energies of the candidates, and none for phases.
        """
        part = self.of_candidates()
        part._skips_labelled, part._left = not labelled, None
        return part

    def put(self, rows: FeatureRows, records: Sequence[Record] | None = None) -> FeatureRows:
        """Put energies where the backbone's are; a row that gets none, or one that cannot be right, gets a reason.

        Parameters
        ----------
        rows : FeatureRows
            With the energies of the backbone.
        records : sequence of Record, optional
            Whose rows they are; rows of a store have none.

        Raises
        ------
        LabelError
            If an array ends too early, or energies are to be computed of structures that are not there.
        """
        ids, labelled = rows.column("id").tolist(), np.isfinite(rows.numbers("energy_ev"))
        values, reasons = np.full(len(ids), np.nan), np.full(len(ids), None, dtype=object)
        for k, name in enumerate(ids):
            record = None if records is None else records[k]
            try:
                skipped = self._skips_labelled and labelled[k]
                energy = None if skipped else to_energy(self._energy(str(name), record))
                values[k] = np.nan if energy is None else energy
                reasons[k] = NO_ENERGY if energy is None else None
            except LabelError:
                raise
            except Exception as error:  # whatever a user's function or calculator raises
                reasons[k] = f"its energy could not be computed: {type(error).__name__}: {one_line(error)}"
        return with_energies(rows, values, reasons, check=True, labels_stay=self._labels_stay)

    def check_all_used(self) -> None:
        """LabelError if an array had more energies than there were structures."""
        if self._left:
            raise LabelError(
                f"energies has {len(self._left):,} more values than there are structures; give one for each, in order."
            )

    def _energy(self, name: str, record: Record | None) -> Any:
        if self._by_id is not None:
            return self._by_id.get(name)
        if self._function is not None:
            if record is None:
                raise LabelError(
                    "energies of the structures of a feature store cannot be computed; give them by id."
                )
            return None if record.crystal is None else self._function(record.crystal.to_atoms())
        if self._left is None:
            return None
        if not self._left:
            raise LabelError(
                f"energies ends before the structure {name}; give one for each structure, in order, also for "
                "those that cannot be read, or a mapping by id."
            )
        return self._left.popleft()


def with_energies(
    rows: FeatureRows,
    energy_ev: NDArray[np.float64],
    reasons: NDArray[Any],
    *,
    check: bool = False,
    labels_stay: bool = False,
) -> FeatureRows:
    """Rows with other energies in place of the backbone's.

    Parameters
    ----------
    rows : FeatureRows
    energy_ev : ndarray, shape (n,)
        Total energies of the cells, eV; NaN where there is none.
    reasons : ndarray of object, shape (n,)
        Why a row has none; rows that had a reason before keep theirs.
    check : bool
        Give a row a reason too where its energy is no total energy, seen from the backbone's own.
    labels_stay : bool
        A row with a label keeps the backbone's energy, from which the label is judged, and its reason is in the column
        ``energy_reason``: on a hull it may compete with its label.
    """
    before = rows.table["reason"].isna().to_numpy()
    reasons = reasons.copy()
    if check:
        good = np.flatnonzero(before & np.isfinite(energy_ev))
        reasons[good] = _implausible(rows.take(good), energy_ev[good])
    gone = before & (reasons != None)  # noqa: E711 - element by element
    stays = gone & np.isfinite(rows.numbers("energy_ev")) & labels_stay
    gone &= ~stays
    energy_ev = np.where(stays, rows.numbers("energy_model_ev"), energy_ev)
    if labels_stay:
        why = np.full(len(reasons), None, dtype=object)
        why[stays] = reasons[stays]
        rows = FeatureRows(rows.table.assign(**{ENERGY_REASON: why}), rows.features, rows.atoms)
    table = rows.table.assign(
        energy_model_ev=np.where(before & ~gone, energy_ev, np.nan),
        reason=np.where(gone, reasons, rows.table["reason"].to_numpy(dtype=object)),
    )
    return FeatureRows(table, np.where(gone[:, None], np.nan, rows.features), rows.atoms)


def _implausible(rows: FeatureRows, energy_ev: NDArray[np.float64]) -> NDArray[Any]:
    """Why energies cannot be what is wanted, seen from those of the backbone; None where they can be."""
    own = rows.table["energy_model_ev"].to_numpy(dtype=np.float64)
    n_atoms = rows.table["n_atoms"].to_numpy(dtype=np.float64)
    counts = element_counts(rows.table["elements"].tolist(), rows.table["counts"].tolist())
    out = np.full(len(own), None, dtype=object)
    if trouble := label_trouble(energy_ev, own, counts):
        what = "those of the model that only gives the features" if trouble.kind == "own" else trouble.what
        out[:] = f"the given energies are {what}; {_WANTED}"
        return out
    for k, off in enumerate((energy_ev - own) / n_atoms):
        if suspect_label(off):
            out[k] = f"the given energy is {abs(off):.1f} eV/atom away from any plausible one; {_WANTED}"
    return out


def energy_note(head: CalibratedHead) -> str:
    """Say in a sentence whose energy is bounded, where it is not that of the frozen model alone; else empty."""
    if head.material is not None:
        return material_note(head)
    return published_note(head) if head.published else ""


def published_note(head: CalibratedHead) -> str:
    """Say in a sentence which model gives energies and which features, and what the bounds came from.

    Parameters
    ----------
    head : CalibratedHead
        Of published energies.
    """
    own, about = head.identity, head.provenance
    sources = ", ".join(about.get("sources", ())) or "labelled"
    notes = str(about.get("notes", "")).rstrip(".")
    n = sum(about.get("rows", {}).values())
    measured = [
        (f"±{row['median_width_mev_per_atom'] / 2:.0f}", percent(row["level"]))
        for row in about.get("coverage", ())
        if "median_width_mev_per_atom" in row
    ]
    widths, levels = ("/".join(part) for part in zip(*measured, strict=True)) if measured else ("", "")
    return (
        f"{own.model} gives the energy, {own.backbone} the features: the head {head.name} was fitted to "
        f"E_DFT − E of {own.model} on {n:,} {sources} crystals"
        f"{notes and ', '}{notes}"
        f"{f'; bounds are {widths} meV/atom (median) at {levels} %' if measured else ''}."
    )


def material_note(head: CalibratedHead) -> str:
    """Say in a sentence which energy a head of one chemistry gives, and relative to what.

    Parameters
    ----------
    head : CalibratedHead
        With ``material``.
    """
    material, about = head.material, head.provenance
    assert material is not None
    n = sum(about.get("rows", {}).values())
    return (
        f"The energy is that of {head.identity.model}'s readout, refitted to {n:,} frames of {material.symbols} "
        f"(energy_expected_ev); it is relative to {material.reference}: with DFT energies of another reference, or of "
        "other settings, compare differences."
    )


def of_another_reference(labels: pd.DataFrame, head: CalibratedHead) -> dict[tuple[str, str], str]:
    """Labels that are not relative to what the energies of a head of one chemistry are, with the remedy.

    Parameters
    ----------
    labels : DataFrame
        :data:`mace_bounds.features.LABEL_COLUMNS` of one or several sources.
    head : CalibratedHead
        With ``material``.

    Returns
    -------
    dict
        By source and kind of label one sentence, as of :func:`mace_bounds.features.refused_labels`.
    """
    assert head.material is not None
    good = labels[labels["reason"].isna() & labels["energy_ev"].notna()]
    off = (good["energy_ev"] - good["energy_model_ev"]) / good["n_atoms"]
    out = {}
    for (source, kind), rows in off.groupby([good["source"], good["label_kind"]], dropna=False, sort=False):
        median = float(rows.median())
        if abs(median) > _SAME_REFERENCE_EV:
            side = "above" if median > 0 else "below"
            out[str(source), str(kind)] = (
                f"the labels of {source} are about {abs(median):.1f} eV/atom {side} the head's "
                f"energies, which are relative to {head.material.reference}: with another reference only differences "
                "of energies can be compared; shift the labels to the same reference, or leave them."
            )
    return out
