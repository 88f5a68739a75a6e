"""An ASE calculator: energy, forces and stress of a model, with bounds of the energy from the same forward."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from mace_bounds.bounds import (
    Bounds,
    BoundsPredictor,
    Committee,
    Evaluated,
    LinearCorrection,
    bounds_of,
    committee_of,
    drawn_corrections,
    evaluate,
    expected_correction,
    std_ev,
)
from mace_bounds.calculator.watching import BoundsWarning, Threshold, ThresholdExceeded, Watch
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.features import ExtractSettings
from mace_bounds.structures import Crystal, Record, read

if TYPE_CHECKING:
    from mace_bounds.backbones import Derivatives
    from mace_bounds.calibration import CalibratedHead

_LARGEST = 1_000_000  # atoms: who moves a large cell has chosen to
_PADDING = 5.0  # as mace: a direction that is not periodic is so many cutoffs times the largest coordinate


class BoundsCalculator(Calculator):  # type: ignore[misc]
    """Energy, forces and stress of a model, and bounds of the energy, from one forward and one backward pass.

    Parameters
    ----------
    model : str, path, torch.nn.Module, Backbone or BoundsPredictor, optional
        As :class:`BoundsPredictor` takes it, or a predictor itself, which brings head, level and settings.
    head : str, path or CalibratedHead, optional
        As :class:`BoundsPredictor` takes it.
    level : float
        Nominal coverage of the bounds.
    mean : {"frozen", "refit"}, optional
        Whose energy, forces and stress: the frozen model's, or those of the middle of the bounds, the model with the
        head's expected error added. By default the frozen model's, and the refit's of a head of one chemistry.
    settings : ExtractSettings, optional
        ``device``, ``dtype`` and ``memory_bytes``; in float64 by default, as relaxations need.
    n_draws : int
        With 2 or more, results also have ``forces_uncertainty``, ``stress_uncertainty`` and ``energy_ensemble`` of so
        many members at every step. Each costs a backward pass, about half of what the model alone takes;
        :meth:`committee` computes them when they are asked for.
    uncertainty_threshold : float or Threshold, optional
        Largest calibrated standard deviation, meV/atom, beyond which it warns; or what else a :class:`Threshold` says.

    Attributes
    ----------
    results : dict
        Beside what ase knows (``energy``, ``free_energy``, ``forces``, ``stress``), in eV of the cell:
        ``energy_lower`` and ``energy_upper``, the bounds of the DFT energy; ``energy_expected``, their middle;
        ``energy_uncertainty``, half of the 68 % interval. ``gamma`` (n_atoms,) ranks atoms by how new their
        surroundings are and is no error bound; ``novelty`` is above 1 where the structure is unlike the head's data;
        ``flags`` (tuple of str). A structure without bounds has NaN there and a ``reason``, else None.
    exceeded : str
        How the last structure exceeds the threshold; empty where it does not.

    Notes
    -----
    ``forces_uncertainty`` (n_atoms, 3), eV/Å, and ``stress_uncertainty`` (6,), eV/Å³, are standard deviations over
    draws of the head's POPS posterior, each stretched by one number such that the energies spread as the calibrated
    standard deviation of *this structure's energy* says. They are not calibrated against errors of forces or stress:
    no forces took part in the fit, and nothing was measured of them.

    Structures that are not periodic in all directions get the model's numbers as ``MACECalculator`` gives them, and no
    bounds: heads were calibrated on crystals.

    Raises
    ------
    HeadError, ModelError
        As :class:`BoundsPredictor`; also if the model gives no derivatives, or ``mean="refit"`` with a head whose
        bounds are centred on the model's own energy.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from mace_bounds import BoundsCalculator
    >>> atoms = bulk("NaCl", "rocksalt", 5.64)
    >>> atoms.calc = BoundsCalculator("mini")  # doctest: +SKIP
    >>> forces = atoms.get_forces()  # doctest: +SKIP
    >>> atoms.calc.results["energy_lower"] < atoms.calc.results["energy_upper"]  # doctest: +SKIP
    True
    """

    name = "mace_bounds"
    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        model: Any = None,
        head: str | Path | CalibratedHead | None = None,
        *,
        level: float = 0.95,
        mean: Literal["frozen", "refit"] | None = None,
        settings: ExtractSettings | None = None,
        n_draws: int = 0,
        uncertainty_threshold: float | Threshold | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, BoundsPredictor):
            self.predictor = model
        else:
            settings = settings or ExtractSettings(dtype="float64")
            self.predictor = BoundsPredictor(model, head, level=level, settings=settings)
        of_one_chemistry = self.predictor.head.material is not None
        self.mean = mean or ("refit" if of_one_chemistry else "frozen")
        self._correction = self._centre() if self.mean == "refit" else None
        self.n_draws = n_draws
        given = uncertainty_threshold
        self.threshold = Threshold(given) if isinstance(given, (int, float)) else given
        self.exceeded = ""
        self._watched = False
        self._seen: _Seen | None = None
        own = self.predictor.head
        self.parameters.update(
            model=own.identity.model, head=own.name, head_digest=own.digest[:12], level=self.predictor.level
        )
        self.parameters.update(mean=self.mean, n_draws=n_draws, dtype=self.predictor.settings.dtype)

    def _centre(self) -> LinearCorrection:
        head = self.predictor.head
        if not head.refit:
            raise HeadError(
                f"the bounds of the head {head.name} are centred on the model's own energy, as no refit beat it on "
                "left-out compositions; use mean='frozen'."
            )
        return expected_correction(head)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill :attr:`results`; called by ase.

        Raises
        ------
        StructureError
            If the model cannot be run on the structure, with the reason.
        ThresholdExceeded
            If the structure exceeds the threshold, and that is to be raised.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        self._seen = None  # its memory, before the next forward
        record = self._record()
        crystal = (
            _padded(self.atoms, self.predictor.model.cutoff_a) if record.crystal is None else record.crystal
        )
        seen = evaluate(self.predictor, crystal)
        mean, added_ev = self._mean(seen, crystal)
        energy_ev = float(mean.energy_ev[0]) + added_ev
        self.results = {
            "energy": energy_ev,
            "free_energy": energy_ev,
            "forces": mean.forces_ev_a[0],
            "stress": full_3x3_to_voigt_6_stress(mean.stress_ev_a3[0]),
        }
        bounds = None
        if record.reason is None:
            bounds, gamma = bounds_of(self.predictor, record, seen)
            self.results |= _of_bounds(bounds) | {"gamma": gamma, "reason": None}
        else:
            nothing = dict.fromkeys(_COLUMNS, np.nan) | {"novelty": np.nan, "flags": ()}
            self.results |= nothing | {
                "gamma": np.full(len(crystal.numbers), np.nan),
                "reason": record.reason,
            }
        self._seen = _Seen(crystal, seen, replace(mean, energy_ev=mean.energy_ev + added_ev), bounds)
        if self.n_draws and bounds is not None:
            committee = self.committee(n=self.n_draws)
            self.results |= {
                "energy_ensemble": committee.energy_ensemble_ev,
                "forces_uncertainty": committee.forces_uncertainty_ev_a,
                "stress_uncertainty": full_3x3_to_voigt_6_stress(committee.stress_uncertainty_ev_a3),
            }
        self._judge(bounds)

    def _record(self) -> Record:
        """The present structure as a record; without a crystal where it gets no bounds, but the model can be run."""
        model, atoms = self.predictor.model, self.atoms
        assert atoms is not None
        unknown = sorted(set(atoms.numbers.tolist()) - set(model.atomic_numbers))
        if unknown:
            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise StructureError(f"the model {model.name} does not know {names}; choose another model.")
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)  # without labels
        (record,) = read(plain, max_atoms=_LARGEST, elements=frozenset(model.atomic_numbers))
        if self.predictor.head.material is not None:
            record = self.predictor.head.material.checked(record)
        if record.reason is not None and atoms.pbc.all():
            raise StructureError(record.reason)
        return record

    def _mean(self, seen: Evaluated, crystal: Crystal) -> tuple[Derivatives, float]:
        """What is given as energy, forces and stress, and a part of the energy that does not depend on positions."""
        if self._correction is None:
            return seen.derivatives(), 0.0
        mean = seen.derivatives(self._correction.of_features_ev)
        constant = self._correction.energies_ev(np.zeros_like(seen.features.features), crystal)
        return mean, float(constant[0])

    def _judge(self, bounds: Bounds | None) -> None:
        before, self.exceeded = self.exceeded, ""
        if self.threshold is None:
            return
        self.exceeded = self.threshold.exceeded(bounds)
        if not self.exceeded:
            return
        if self.threshold.then == "raise" or (self.threshold.then == "stop" and not self._watched):
            raise ThresholdExceeded(self.exceeded)
        if self.threshold.then == "warn" and not before:
            warnings.warn(self.exceeded, BoundsWarning, stacklevel=2)

    def committee(
        self, atoms: Atoms | None = None, *, n: int = 16, stretch: float | None = None
    ) -> Committee:
        """Energies, forces and stresses of ``n`` members about the potential in use; ``n`` backward passes.

        Parameters
        ----------
        atoms : Atoms, optional
            By default the last ones; computed first where that has not been done.
        n : int
            How many, at least 2. The same draws at every step.
        stretch : float, optional
            By what draws are multiplied; by default such that the energies of this structure spread as its calibrated
            standard deviation says. With :attr:`Committee.stretch` of one structure for a whole trajectory every member
            is a potential of its own.

        Raises
        ------
        StructureError
            If the structure has no bounds.
        """
        if n < 2:
            raise HeadError(f"a committee needs at least 2 members, and {n} was asked for.")
        if atoms is not None or self._seen is None:
            self.get_property("energy", atoms)
        if self._seen is None:  # the results are there, their graph is not: a copy, or after pickling
            self.calculate(self.atoms)
        seen = self._seen
        assert seen is not None
        if seen.bounds is None:
            raise StructureError(str(self.results["reason"]))
        drawn = drawn_corrections(self.predictor.head, n)
        return committee_of(drawn, seen.mean, seen.evaluated, seen.crystal, std_ev(seen.bounds), stretch)

    def annotate(self, atoms: Atoms) -> Atoms:
        """Put the bounds into ``atoms.info`` and ``atoms.arrays``, so that files and databases keep them.

        Returns
        -------
        Atoms
            The same object: ``info["mace_bounds_…"]`` has the columns of the bounds table with their units in the
            names, as ``mace-bounds score`` writes them, ``arrays["mace_bounds_gamma"]`` the ranking of atoms, and with
            ``n_draws`` ``arrays["mace_bounds_forces_uncertainty_ev_a"]``.
        """
        self.get_property("energy", atoms)
        for kept in (atoms.info, atoms.arrays):
            for key in [key for key in kept if key.startswith(_PREFIX)]:
                del kept[key]
        results, bounds = self.results, None if self._seen is None else self._seen.bounds
        values: dict[str, Any] = {"reason": results["reason"]}
        if bounds is not None:
            values |= bounds.to_dict() | {"flags": ";".join(bounds.flags)}
            del values["id"]
        atoms.info |= {f"{_PREFIX}{name}": value for name, value in values.items() if value not in (None, "")}
        if len(results["gamma"]) == len(atoms):
            atoms.arrays[f"{_PREFIX}gamma"] = results["gamma"].copy()
        if "forces_uncertainty" in results:
            atoms.arrays[f"{_PREFIX}forces_uncertainty_ev_a"] = results["forces_uncertainty"].copy()
            atoms.info[f"{_PREFIX}stress_uncertainty_ev_a3"] = results["stress_uncertainty"].copy()
        return atoms

    def watch(self, dynamics: Any, interval: int = 1) -> Watch:
        """Attach an observer to a dynamics or an optimiser of ase that moves atoms with this calculator.

        Returns
        -------
        Watch
            Its ``table`` has the bounds of every step. It ends the run where the threshold says ``stop``.
        """
        watch = Watch(self, dynamics)
        dynamics.attach(watch, interval=interval)
        self._watched = True
        return watch

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_seen": None}  # a graph of torch can be neither copied nor sent

    def __repr__(self) -> str:
        return f"BoundsCalculator({self.predictor!r}, mean={self.mean!r})"


_PREFIX = "mace_bounds_"
_COLUMNS = {
    "energy_expected": "energy_expected_ev",
    "energy_lower": "energy_lower_ev",
    "energy_upper": "energy_upper_ev",
    "energy_uncertainty": "",
}
"""Results of the energy, with their columns of the bounds table."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """The last structure, with what further derivatives need."""

    crystal: Crystal
    evaluated: Evaluated
    mean: Derivatives
    bounds: Bounds | None


def _of_bounds(bounds: Bounds) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(bounds, column) for name, column in _COLUMNS.items() if column}
    std, novelty = std_ev(bounds), bounds.novelty
    values["energy_uncertainty"] = np.nan if std is None else std
    return values | {"novelty": np.nan if novelty is None else novelty, "flags": tuple(bounds.flags)}


def _padded(atoms: Atoms, cutoff_a: float) -> Crystal:
    """A structure that is not periodic everywhere, in a cell where its images are out of reach; that of mace."""
    cell = np.array(atoms.cell) if atoms.cell.any() else np.eye(3)
    length = (np.abs(atoms.positions).max() + 1.0) * _PADDING * cutoff_a
    cell[~atoms.pbc] = length * np.eye(3)[~atoms.pbc]
    if not np.isfinite(atoms.positions).all() or abs(np.linalg.det(cell)) < 1e-3:
        raise StructureError(
            "positions or cell are not finite, or a periodic direction has no vector; correct them."
        )
    return Crystal(atoms.numbers.astype(np.int64), atoms.positions.astype(np.float64), cell)
