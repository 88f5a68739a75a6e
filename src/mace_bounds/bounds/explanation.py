"""Why bounds are as wide as they are: the nearest labelled crystals, what σ is made of, and what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.calibration import CalibratedHead, KeptRows, head_inputs, scale_inputs
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows
from mace_bounds.flags import FLAGS, flag_names

N_NEIGHBOURS = 5
WIDE, NARROW = 75.0, 25.0
"""Percentiles of σ among the head's rows from which bounds are called wide, and up to which narrow."""

_NO_ROWS = "this head carries no rows of its data, so its nearest crystals and usual widths are not known: fit it again"
_DRIVES = 1.1  # what multiplies σ, or its inverse, by less is not named as what drives it


@dataclass(frozen=True)
class Bounds:
    """Error bounds of one structure; names and units as the columns of :data:`mace_bounds.columns.BOUNDS`.

    Attributes
    ----------
    id, formula : str
    n_atoms : int
    energy_model_ev, energy_expected_ev : float
        Total energy by the model, and with the expected error added, eV.
    energy_lower_ev, energy_upper_ev : float
        Bounds of the total DFT energy at the level, eV.
    expected_error_mev_per_atom, std_mev_per_atom, lower_mev_per_atom, upper_mev_per_atom : float
        Of E_DFT - E_model, meV/atom.
    level : float
        Nominal coverage of the bounds.
    extrapolation_grade, novelty : float
        How far from the head's data; above 1 raises the flag ``extrapolates``.
    seen_in : str
        What the composition was used for before.
    quantity : str
        What the bounds are of.
    flags : dict of str to str
        Raised flags with what they mean.
    model, features_of, model_digest, head, head_digest, version : str
        What the bounds come from.
    """

    id: str
    formula: str
    n_atoms: int
    energy_model_ev: float
    energy_expected_ev: float
    energy_lower_ev: float
    energy_upper_ev: float
    expected_error_mev_per_atom: float
    std_mev_per_atom: float | None
    lower_mev_per_atom: float
    upper_mev_per_atom: float
    level: float
    extrapolation_grade: float
    novelty: float | None
    seen_in: str
    flags: dict[str, str]
    quantity: str
    model: str
    features_of: str
    model_digest: str
    head: str
    head_digest: str
    version: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Bounds:
        """Take a row of the bounds table that has no reason."""
        values = {field.name: row[field.name] for field in fields(cls)}
        values["flags"] = {name: FLAGS[name].meaning for name in flag_names(row["flags"]) if name in FLAGS}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        flags = f"; {', '.join(self.flags)}" if self.flags else ""
        return (
            f"{self.formula}: {self.energy_model_ev:.4f} eV, {self.quantity} from {self.energy_lower_ev:.4f} to "
            f"{self.energy_upper_ev:.4f} eV ({100 * self.level:g} % bounds{flags})"
        )


@dataclass(frozen=True)
class Neighbour:
    """A labelled row of the head's own data."""

    id: str
    formula: str  # reduced
    distance: float  # root mean square difference of the features per atom, in standard deviations of the head's data
    error_mev_per_atom: float  # E_DFT - E_model
    inside: (
        bool | None
    )  # whether bounds of a head that had not seen its composition hold the label; None: no such head


@dataclass(frozen=True)
class Contribution:
    """One part of log σ, against its mean over the head's rows."""

    name: str
    factor: float  # what it multiplies σ by


@dataclass(frozen=True)
class NovelAtom:
    """How new the surroundings of an atom are."""

    site: int  # counted from 0, in the order of the structure
    element: str
    grade: float  # D-optimality grade against the nearest cluster of the head's atoms
    novelty: float  # over its threshold; above 1 is new


@dataclass(frozen=True)
class Explanation:
    """Why the bounds of one structure are as wide as they are.

    ``typical_sigma_mev_per_atom`` times the factors of all ``contributions`` is ``sigma_mev_per_atom``, and that times
    ``conformal_factor`` is ``half_width_mev_per_atom``. What needs rows that the head does not carry is None or empty.

    Attributes
    ----------
    bounds : Bounds
        The bounds that are explained.
    verdict : str
        The answer in words.
    half_width_mev_per_atom : float
        Half of the distance between the bounds.
    sigma_mev_per_atom : float
        The scale σ before calibration.
    conformal_factor : float
        Half-width over σ at the level: calibration, and with heads of folds what they differ by.
    sigma_percentile : float or None
        Share of the head's rows with a smaller σ, in percent.
    typical_sigma_mev_per_atom : float or None
        Geometric mean of σ over rows that are new to the head.
    contributions : tuple of Contribution
        What σ is made of, the largest first.
    neighbours : tuple of Neighbour
        The nearest labelled rows of the head's data, the nearest first.
    neighbour_error_mev_per_atom, usual_error_mev_per_atom : float or None
        Median size of the error of these, and of all rows of the head's data.
    nearest_distance, far_distance : float or None
        To the nearest row, and the distance within which 95 % of the head's rows have one of another composition.
    atoms : tuple of NovelAtom
        All atoms, those with the newest surroundings first; none where the head does not grade atoms.
    unseen_elements, unseen_pairs : tuple of str
        Elements, and pairs of elements in one structure, that the head was not fitted on.
    """

    bounds: Bounds
    verdict: str
    half_width_mev_per_atom: float
    sigma_mev_per_atom: float
    conformal_factor: float
    sigma_percentile: float | None
    typical_sigma_mev_per_atom: float | None
    contributions: tuple[Contribution, ...]
    neighbours: tuple[Neighbour, ...]
    neighbour_error_mev_per_atom: float | None
    usual_error_mev_per_atom: float | None
    nearest_distance: float | None
    far_distance: float | None
    atoms: tuple[NovelAtom, ...]
    unseen_elements: tuple[str, ...]
    unseen_pairs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"Explanation({self.bounds.formula}: {self.verdict})"

    __str__ = __repr__


def explain_row(
    rows: FeatureRows,
    numbers: NDArray[np.int64],
    head: CalibratedHead,
    bounds: Bounds,
    n_neighbours: int = N_NEIGHBOURS,
) -> Explanation:
    """Explain the bounds of one structure.

    Parameters
    ----------
    rows : FeatureRows
        Its one row, which has features, with its atoms if the head grades these.
    numbers : ndarray of int64, shape (n_atoms,)
        Atomic numbers of its sites.
    head : CalibratedHead
        The head that gave the bounds.
    bounds : Bounds
        At a level that the head is calibrated for.
    n_neighbours : int
        How many labelled rows are named, at least one.

    Raises
    ------
    HeadError
        If the rows that the head carries do not belong to its scale.
    """
    design = head_inputs(rows, composition=head.identity.composition)
    said = head.intervals(rows)
    sigma = float(said.sigma[0])
    lower, upper = said.at(bounds.level)
    half = 0.5 * float(upper[0] - lower[0])
    kept = head.kept_rows
    parts: dict[str, Any] = {
        "sigma_percentile": None,
        "typical_sigma_mev_per_atom": None,
        "contributions": (),
        "neighbours": (),
        "neighbour_error_mev_per_atom": None,
        "usual_error_mev_per_atom": None,
        "nearest_distance": None,
        "far_distance": None,
    }
    if kept is not None:
        terms = head.scale.terms(scale_inputs(said.pops, design))
        typical, contributions = _contributions({name: float(term[0]) for name, term in terms.items()}, kept)
        parts |= _neighbourhood(kept, design.features, bounds.level, n_neighbours)
        parts |= {
            "sigma_percentile": kept.sigma_percentile(sigma),
            "typical_sigma_mev_per_atom": typical * MEV_PER_EV,
            "contributions": contributions,
        }
    explanation = Explanation(
        bounds=bounds,
        verdict="",
        half_width_mev_per_atom=half * MEV_PER_EV,
        sigma_mev_per_atom=sigma * MEV_PER_EV,
        conformal_factor=half / sigma,
        atoms=_atoms(rows, numbers, head),
        unseen_elements=_symbols(np.flatnonzero((design.fractions[0] > 0) & ~head.scale.seen_elements) + 1),
        unseen_pairs=_unseen_pairs(np.unique(numbers), head),
        **parts,
    )
    return replace(explanation, verdict=verdict_of(explanation))


def verdict_of(explanation: Explanation) -> str:
    """Say in words what makes bounds doubtful, how wide they are, and what goes with it."""
    clauses = list(_clauses(explanation))
    if not explanation.neighbours:
        clauses.append(_NO_ROWS)
    return "; ".join(clauses)


def _contributions(terms: dict[str, float], kept: KeptRows) -> tuple[float, tuple[Contribution, ...]]:
    """Typical σ, eV/atom, and what each term multiplies it by."""
    if len(terms) != len(kept.typical_terms):
        raise HeadError("the rows that the head carries are not those of its scale; fit it again.")
    away = {name: value - mean for (name, value), mean in zip(terms.items(), kept.typical_terms, strict=True)}
    # of what all rows share nothing remains
    named = [Contribution(name, float(np.exp(value))) for name, value in away.items() if abs(value) > 1e-12]
    largest_first = sorted(named, key=lambda part: -abs(np.log(part.factor)))
    return float(np.exp(kept.typical_terms.sum())), tuple(largest_first)


def _neighbourhood(
    kept: KeptRows, features: NDArray[np.float64], level: float, n_neighbours: int
) -> dict[str, Any]:
    """Nearest rows, their errors beside those of all, and distances."""
    distance = kept.distances(features)[0]
    nearest = np.argsort(distance, kind="stable")[: max(n_neighbours, 1)]
    size = np.abs(kept.error_ev_per_atom.astype(np.float64)) * MEV_PER_EV
    covered = kept.covered_above_level
    return {
        "neighbours": tuple(
            Neighbour(
                id=kept.ids[k],
                formula=kept.formulas[k],
                distance=float(distance[k]),
                error_mev_per_atom=float(kept.error_ev_per_atom[k]) * MEV_PER_EV,
                inside=None if np.isnan(covered[k]) else bool(covered[k] <= level),
            )
            for k in nearest
        ),
        "neighbour_error_mev_per_atom": float(np.median(size[nearest])),
        "usual_error_mev_per_atom": float(np.median(size)),
        "nearest_distance": float(distance[nearest[0]]),
        "far_distance": kept.far if np.isfinite(kept.far) else None,
    }


def _atoms(rows: FeatureRows, numbers: NDArray[np.int64], head: CalibratedHead) -> tuple[NovelAtom, ...]:
    if head.novelty is None or rows.atoms is None or len(rows.atoms.values) != len(numbers):
        return ()
    grade, threshold = head.novelty.atom_grades(rows)
    return tuple(
        NovelAtom(int(k), _symbols(numbers[k : k + 1])[0], float(grade[k]), float(grade[k] / threshold))
        for k in np.argsort(-grade, kind="stable")
    )


def _unseen_pairs(elements: NDArray[np.int64], head: CalibratedHead) -> tuple[str, ...]:
    if head.novelty is None:
        return ()
    seen = head.novelty.seen_pairs
    return tuple(
        "-".join(_symbols(np.array([a, b])))
        for a, b in combinations(elements.tolist(), 2)
        if not seen[a - 1, b - 1]
    )


def _symbols(numbers: NDArray[np.int64]) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[int(z)] for z in numbers)


def _clauses(e: Explanation) -> Iterator[str]:
    if e.unseen_elements:
        be = "is" if len(e.unseen_elements) == 1 else "are"
        yield f"{', '.join(e.unseen_elements)} {be} in no crystal that the head was fitted on"
    if e.nearest_distance is not None and e.far_distance and e.nearest_distance > e.far_distance:
        yield (
            f"far from the data: {e.nearest_distance / e.far_distance:.1f} × the distance within which 95 % of the "
            "head's crystals have a labelled one"
        )
    if (e.bounds.novelty or 0.0) > 1.0:
        yield f"unlike the head's data (novelty {e.bounds.novelty:.3g})"
    p = e.sigma_percentile
    if p is not None and NARROW < p < WIDE:
        yield f"ordinary: width at the {_ordinal(p)} percentile of the head's data"
    elif p is not None:
        wide = p >= WIDE
        drives = [part for part in e.contributions if (part.factor if wide else 1 / part.factor) >= _DRIVES]
        by = f", most by {drives[0].name} (σ × {drives[0].factor:.2g})" if drives else ""
        yield f"{'wide' if wide else 'narrow'}: width at the {_ordinal(p)} percentile of the head's data{by}"
    if e.neighbour_error_mev_per_atom is not None:
        yield (
            f"its nearest labelled crystals err by {e.neighbour_error_mev_per_atom:.0f} meV/atom, all of the data by "
            f"{e.usual_error_mev_per_atom:.0f} (medians)"
        )


def _ordinal(percentile: float) -> str:
    n = round(percentile)
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
