"""A head of one metal beside the data: lines of properties, each a prediction with error bars and a DFT value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mace_bounds import BoundsPredictor
from mace_bounds.bounds import find_head
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import Frame
from mace_bounds.propagation import Potential
from mace_bounds.structures import Crystal
from material_data import LAB, Metal, energy_ev, frames_elsewhere, frames_of_metal, lab_reference

N_DRAWS = 2000


@dataclass(frozen=True)
class Line:
    """One property."""

    group: str
    name: str
    unit: str
    value: float
    std: float
    lower: float  # of the 95 % interval
    upper: float
    range_lower: (
        float | None
    )  # the envelope of all POPS corrections, where the property is linear in the weights
    range_upper: float | None
    dft: float | None
    source: str

    def scaled(self, group: str, unit: str, by: float) -> Line:
        """The same in another unit and group."""
        numbers = ("value", "std", "lower", "upper", "range_lower", "range_upper", "dft")
        values = {name: None if getattr(self, name) is None else by * getattr(self, name) for name in numbers}
        return replace(self, group=group, unit=unit, **values)

    @property
    def inside(self) -> bool | None:
        """Whether DFT is within the 95 % interval; not where there is no interval."""
        if self.dft is None:
            return None
        return self.lower is not None and bool(self.lower <= self.dft <= self.upper)

    def to_row(self) -> dict[str, object]:
        """Columns of the table."""
        row = asdict(self) | {"inside_95": self.inside, "error_over_std": None, "error_over_range": None}
        if self.dft is not None and self.lower is not None:
            row["error_over_std"] = abs(self.dft - self.value) / self.std
            if self.range_lower is not None and self.range_upper is not None:
                side = self.range_upper if self.dft > self.value else self.range_lower
                row["error_over_range"] = abs(self.dft - self.value) / abs(side - self.value)
        return row


class Studied:
    """A head of one metal, its draws, and the data beside it."""

    def __init__(self, metal: Metal, head: str | Path, data: Path, model: str | None = None) -> None:
        self.metal, self.head, self.data, self.model = metal, head, data, model
        self.predictor = BoundsPredictor(
            model, head=head, settings=ExtractSettings(dtype="float64", device="cpu")
        )
        self.theta = self.predictor.coefficients()
        self.potential = Potential.of(self.predictor.model, self.theta, N_DRAWS)
        self.drawn = self.potential.theta_ev

    @cached_property
    def reference(self) -> dict:
        """What the lab's frames give for the bcc metal."""
        return lab_reference(self.data, self.metal)

    @cached_property
    def elsewhere(self) -> dict[str, list[Frame]]:
        """Frames of sets that took no part, by who made them."""
        return frames_elsewhere(self.data, self.metal)

    @cached_property
    def fitted(self) -> list[Frame]:
        """Frames of the sets that the head was fitted to, as they are in the files."""
        return frames_of_metal(self.data, self.metal, self.metal.fitted)

    @cached_property
    def lab(self) -> list[Frame]:
        """The lab's frames of the metal, whether they were fitted or not."""
        return self.elsewhere.get(LAB, self.fitted)

    def unseen(self, family: str) -> Studied | None:
        """The same with a head that has not seen a family of frames: itself, one beside it, or none."""
        about = self.predictor.head.provenance
        if family not in about["sources"] or family in about["settings"].get("without", "").split(","):
            return self
        folder = Path(find_head(None, self.head))
        beside = folder.with_name(f"{folder.name}-without-{family}")
        return Studied(self.metal, beside, self.data, self.model) if beside.is_dir() else None

    def rows(self, crystals: list[Crystal]) -> tuple[np.ndarray, np.ndarray]:
        """Features with the count of atoms (n, C), and the part of the energy that no weight changes, eV (n,)."""
        rows = self.potential.rows(crystals)
        return rows.features, rows.fixed_ev

    def linear(
        self, names: tuple[str, str, str], row: np.ndarray, fixed: float, dft: float | None, source: str
    ) -> Line:
        """A property ``row @ θ + fixed``: exact standard deviation and envelope; the interval from draws.

        ``names``: group, name and unit.
        """
        values = self.drawn @ row + fixed
        low, high = self.theta.envelope(row[None])
        return Line(
            *names, float(values[0]), float(self.theta.std(row[None])[0]),
            *(float(q) for q in np.percentile(values[1:], [2.5, 97.5])),
            float(low[0]) + fixed, float(high[0]) + fixed, dft, source,
        )  # fmt: skip

    def over_bulk(
        self, group: str, frames: Sequence[Frame], names: Sequence[str], bcc: Frame, source: str
    ) -> list[Line]:
        """Energies of cells over as many atoms of a bcc cell of the same set, eV."""
        (base,), (base_fixed,) = self.rows([crystal_of(bcc)])
        features, fixed = self.rows([crystal_of(f) for f in frames])
        lines = []
        for f, name, row, rest in zip(frames, names, features, fixed, strict=True):
            share = f.n_atoms / bcc.n_atoms
            dft = energy_ev(f) - share * energy_ev(bcc)
            lines.append(
                self.linear((group, name, "eV"), row - share * base, rest - share * base_fixed, dft, source)
            )
        return lines


def crystal_of(frame: Frame) -> Crystal:
    """Its structure."""
    assert frame.record.crystal is not None
    return frame.record.crystal


def number_of(frame: Frame) -> int:
    """Number of a frame in its family, for sets that count them."""
    return int("".join(c for c in frame.record.id.rsplit("/", 1)[1] if c.isdigit()))


def lowest(frames: Sequence[Frame]) -> Frame:
    """The frame of lowest energy per atom."""
    return min(frames, key=lambda f: energy_ev(f) / f.n_atoms)


def summary(lines: list[Line]) -> list[dict[str, object]]:
    """By group and of all: DFT values inside the interval, where a missing one holds nothing, and mean |error| / std."""
    out = []
    for group in [*dict.fromkeys(line.group for line in lines), "all"]:
        rows = [x.to_row() for x in lines if x.dft is not None and group in ("all", x.group)]
        ranges = [r["error_over_range"] for r in rows if r["error_over_range"] is not None]
        ratios = [r["error_over_std"] for r in rows if r["error_over_std"] is not None]
        out.append(
            {
                "group": group,
                "n": len(rows),
                "n_without_interval": len(rows) - len(ratios),
                "inside_95": float(np.mean([r["inside_95"] for r in rows])) if rows else None,
                "mean_error_over_std": float(np.mean(ratios)) if ratios else None,
                "within_range": float(np.mean(np.array(ranges) <= 1.0)) if ranges else None,
                "mean_error_over_range": float(np.mean(ranges)) if ranges else None,
            }
        )
    return out
