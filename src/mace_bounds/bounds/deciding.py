"""What a predictor says of several structures together: joint draws, differences, reactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mace_bounds.bounds.decision_rows import DecisionRows, element_references
from mace_bounds.bounds.difference_tables import (
    Difference,
    formation,
    one_difference,
    polymorphs,
    reactions_of,
    volumes,
)
from mace_bounds.bounds.energies import GivenEnergies
from mace_bounds.bounds.hulls import Hull, HullInputs, PhaseEnergies, hull_of
from mace_bounds.decisions import (
    JointModel,
    cells,
    joint_model,
    mp2020_corrections,
    no_corrections,
    oxide_types_of,
)
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.features import AtomRows, FeatureRows, FeatureStore, is_store, without_refused
from mace_bounds.materials_project import with_subsystems
from mace_bounds.settings import check_settings, setting
from mace_bounds.structures import reasons_in_short

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.bounds.energies import Energies
    from mace_bounds.calibration import CalibratedHead
    from mace_bounds.decisions import Corrections
    from mace_bounds.features import Refused
    from mace_bounds.structures import Source, StructureLike

Array = NDArray[np.float64]

LEFT_OUT = (
    "Bounds of DFT energies at 0 K: temperature, vibrations and the error of DFT itself are not part of them."
)
"""What every output of a decision says of itself."""


@dataclass(frozen=True)
class HullSettings:
    """How a hull is made; the command line makes its options from the fields."""

    energies: PhaseEnergies = setting(
        "mixed", "Energies of the competing phases: labels where there are any, labels only, or the model's."
    )
    corrections: bool = setting(True, "Apply the MP2020 corrections (for uncorrected PBE(+U) energies).")
    uncertain_corrections: bool = setting(
        False, "Add the uncertainty of the corrections, shared by all entries of an anion or metal."
    )
    n_draws: int = setting(1000, "Draws of the joint errors.", minimum=50, maximum=100_000)
    seed: int = setting(0, "Random seed of the draws.", minimum=0, maximum=2**32 - 1)

    def __post_init__(self) -> None:
        check_settings(self, HeadError)


class Deciding:
    """The part of :class:`BoundsPredictor` that looks at several structures together."""

    head: CalibratedHead
    level: float
    rows: Callable[..., Iterable[FeatureRows]]
    _refused: Callable[[pd.DataFrame], Refused]
    _given: Callable[[Energies | None], GivenEnergies | None]
    table: Callable[..., pd.DataFrame]

    @cached_property
    def joint_model(self) -> JointModel:
        """What the head knows of joint errors; independence where it was made without."""
        return joint_model(self.head)

    def decision_rows(
        self,
        structures: Source | FeatureRows,
        level: float | None = None,
        *,
        energies: Energies | None = None,
    ) -> DecisionRows:
        """Score structures (anything that :meth:`predict` takes, rows of features, or a feature store)."""
        return self._decision_rows(self._all_rows(structures, energies), level)

    def _decision_rows(self, rows: FeatureRows, level: float | None) -> DecisionRows:
        """Of rows with the energies that are bounded."""
        level = self.level if level is None else self.head.levels.nearest(level)
        rows = without_refused(rows, self._refused(rows.table))
        failed = rows.table.loc[rows.table["reason"].notna(), ["id", "formula", "reason"]]
        scored = rows.scored()
        if not len(scored.table):
            why = reasons_in_short([str(reason) for reason in failed["reason"]])
            raise StructureError(f"none of the structures can be used: {why}")
        table = self.table(scored, level, detailed=True)
        return DecisionRows(scored, table, failed.reset_index(drop=True), self.head, self.joint_model, level)

    def _all_rows(self, structures: Any, energies: Energies | None) -> FeatureRows:
        """Rows of all structures with the energies that are bounded, those that have none with their reason."""
        if isinstance(structures, (str, Path)) and is_store(Path(structures)):
            store = FeatureStore(structures)
            rows, manifest = store.read(), store.manifest
            own = manifest.energies_of if energies is None else self.head.identity.model
            self.head.check_store(replace(manifest, energies_of=own))
        elif isinstance(structures, FeatureRows):
            rows = structures
        else:
            return _joined(list(self.rows(structures, energies)))
        if energies is None:
            return rows
        given = self._given(energies)
        assert given is not None
        rows = given.put(rows)
        given.check_all_used()
        return rows

    def draws(
        self, structures: Source, n: int = 1000, seed: int = 0, *, energies: Energies | None = None
    ) -> Array:
        """Draw errors of all structures together.

        Parameters
        ----------
        structures, energies
            Anything that :meth:`predict` takes.
        n, seed : int
            As of :meth:`mace_bounds.decisions.JointErrors.draws`.

        Returns
        -------
        ndarray, shape (n, m)
            E_DFT - E_model, eV/atom, a column for each of the m structures; a structure that cannot be scored has
            none. Each column is distributed as the calibrated intervals say, columns together as the head's joint
            errors do (independent where the head has none). 10,000 structures and 1,000 draws take 0.3 GB.
        """
        return self.decision_rows(structures, energies=energies).joint.draws(n, seed)

    def difference(
        self,
        coefficients: Mapping[Any, float] | Sequence[tuple[StructureLike, float]],
        level: float | None = None,
        *,
        energies: Energies | None = None,
    ) -> Difference:
        """Bound a difference of energies, in which shared errors cancel.

        Parameters
        ----------
        coefficients : mapping, or sequence of (structure, number)
            Reduced formula units of each structure, which must balance: ``{a: 1, b: -1}`` is how far polymorph a lies
            above b, ``{product: 2, reactant: -1, other: -1}`` a reaction. What cannot be a key (``ase.Atoms``) is given
            in pairs.
        level : float, optional
            Another level than the predictor's.
        energies : optional
            As of :meth:`predict`, for a head of published energies.

        Returns
        -------
        Difference
            Per atom of what is made (positive numbers). ``probability_lower``: that it is below zero.

        Raises
        ------
        StructureError
            If a structure cannot be scored, or an element does not cancel (with what is left over).
        """
        given = list(coefficients.items() if isinstance(coefficients, Mapping) else coefficients)
        found = self.decision_rows([structure for structure, _ in given], level, energies=energies)
        if len(found) != len(given):
            why = found.failed["reason"].tolist() or ["a source holds more than one structure"]
            raise StructureError(f"the difference needs each of its structures: {why[0]}")
        return one_difference(found, [float(number) for _, number in given])

    def differences(
        self,
        structures: Source | FeatureRows,
        of: Literal["polymorphs", "volumes", "formation"] | Sequence[str],
        *,
        references: Mapping[str, float] | None = None,
        level: float | None = None,
        energies: Energies | None = None,
    ) -> pd.DataFrame:
        """Bound many differences among the structures of a source.

        Parameters
        ----------
        structures
            Anything that :meth:`predict` takes, a feature store, or rows of features.
        of : "polymorphs", "volumes", "formation", or sequence of str
            Every pair of structures of one reduced formula, the lower by the model first; the same of those of one
            number of atoms, which you say are one crystal at several volumes, whose errors cancel more; each
            structure less the elements; or reactions (:func:`mace_bounds.decisions.parse_reaction`) between ids or
            formulas of the source, a formula being its lowest structure by the model.
        references : mapping of str to float, optional
            For formation energies: energy of each element, eV/atom, the same in DFT and model. By default the lowest
            labels of the elements in the source.
        level : float, optional
            Another level than the predictor's.
        energies : optional
            As of :meth:`predict`, for a head of published energies; of a feature store by id or in order.

        Returns
        -------
        DataFrame
            One row for each, with the columns of :data:`mace_bounds.columns.DIFFERENCES`; one that cannot be bounded
            has a ``reason``.
        """
        if isinstance(of, str) and of not in ("polymorphs", "volumes", "formation"):
            raise HeadError(
                f"{of!r} is no kind of difference; give 'polymorphs', 'volumes', 'formation' or reactions."
            )
        if of != "formation":
            found = self.decision_rows(structures, level, energies=energies)
            if of == "volumes":
                return volumes(found)
            return polymorphs(found) if of == "polymorphs" else reactions_of(found, of)
        given = None if energies is None else self._given(energies)  # elements may have a label alone
        found = self._decision_rows(self._all_rows(structures, given and given.of_candidates()), level)
        return formation(found, dict(references) if references else element_references(found))

    def element_references(self, structures: Source | FeatureRows) -> dict[str, float]:
        """Lowest label of every element among structures, eV/atom: the references of formation energies.

        Raises
        ------
        StructureError
            If no element has a label that can be used.
        """
        given = GivenEnergies({}).of_candidates() if self.head.published else None
        found = element_references(self._decision_rows(self._all_rows(structures, given), None))
        if not found:
            raise StructureError(
                "the references hold no element with a DFT energy; give structures of the elements with labels."
            )
        return found

    def hull(
        self,
        candidates: Source | FeatureRows,
        phases: Source | FeatureRows | None = None,
        settings: HullSettings = HullSettings(),
        level: float | None = None,
        *,
        energies: Energies | None = None,
    ) -> Hull:
        """Say how far candidates are from the convex hull of competing phases, and how sure that is.

        Parameters
        ----------
        candidates
            Anything that :meth:`predict` takes, a feature store, or rows of features. Their energies are the model's.
        phases : optional
            Competing phases, in the same ways; ``"mp:Li-Fe-P-O"`` is the system with its subsystems. By default the
            candidates compete with each other.
        settings : HullSettings
            Which energies the phases have, corrections, draws.
        level : float, optional
            Another level than the predictor's.
        energies : optional
            As of :meth:`predict`, for a head of published energies. A phase with a label needs none
            (but for ``settings.energies="model"``); an array has one for each candidate.

        Returns
        -------
        Hull
            Its ``table`` has the columns of :data:`mace_bounds.columns.HULLS`.

        Raises
        ------
        StructureError
            If no candidate or no phase can be used.
        """
        given = None if energies is None else self._given(energies)
        first = self._all_rows(candidates, given and given.of_candidates())
        parts = [first]
        if phases is not None:
            of_phases = given and given.of_phases(labelled=settings.energies == "model")
            parts.append(self._all_rows(with_subsystems(phases), of_phases))
        rows = _joined(parts)
        own = np.arange(len(rows.table)) < len(first.table)
        found = self._decision_rows(rows, level)
        scored = rows.table["reason"].isna().to_numpy()
        mine = np.flatnonzero(own[scored])
        others = mine if phases is None else np.flatnonzero(~own[scored])
        failed, of_candidate = found.failed, own[~scored]
        found = replace(found, failed=failed[of_candidate].reset_index(drop=True))
        out = _hull(found, (mine, others), settings, failed["reason"][~of_candidate].tolist())
        place = {name: k for k, name in enumerate(first.table["id"])}
        order = np.argsort([place[name] for name in out.table["id"]], kind="stable")
        return replace(out, table=out.table.iloc[order].reset_index(drop=True))


def hull_among(found: DecisionRows, settings: HullSettings = HullSettings()) -> Hull:
    """The hull of structures that compete with each other, from their scored rows."""
    everyone = np.arange(len(found))
    return _hull(found, (everyone, everyone), settings)


def _hull(
    found: DecisionRows,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    settings: HullSettings,
    unscored: Sequence[str] = (),
) -> Hull:
    """Of candidates and phases by their rows; ``unscored``: why other phases have none."""
    corrections = _mp2020(found) if settings.corrections else no_corrections(len(found))
    inputs = HullInputs(
        found, *rows, corrections, settings.energies, settings.uncertain_corrections, tuple(unscored)
    )
    return hull_of(inputs, settings.n_draws, settings.seed)


def _mp2020(found: DecisionRows) -> Corrections:
    table = found.rows.table
    formulas = cells(table["elements"].tolist(), table["counts"].tolist())
    return mp2020_corrections(formulas, table["run_type"].tolist(), oxide_types_of(table["flags"]))


def _joined(parts: Sequence[FeatureRows]) -> FeatureRows:
    """Rows of several batches as one."""
    import pandas as pd

    if len(parts) == 1:
        return parts[0]
    atoms = [part.atoms for part in parts if part.atoms is not None]
    return FeatureRows(
        pd.concat([part.table for part in parts], ignore_index=True),
        np.concatenate([part.features for part in parts]),
        AtomRows.join(atoms) if len(atoms) == len(parts) else None,
    )
