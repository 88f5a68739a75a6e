"""Which DFT data there are of which metal: what a head is fitted to, what it is compared with, and what is doubted.

The Materials Virtual Lab has the same kinds of frames of every metal here. Tungsten is fitted to another and larger set, so
that all of the lab's frames of tungsten are left for comparison. Of the others a head is fitted to the lab's frames, and
what took part in a fit is compared only by a head that was fitted without it.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ase.data import atomic_numbers
from ase.io import read

from mace_bounds.fitting import Frame, frames_of

LAB = "Materials Virtual Lab"
LAB_SOURCE = "the Materials Virtual Lab, npj Comput. Mater. 6, 70 (2020) (BSD-3-Clause)"
LAB_SETS = ("mvl_monbtaw", "mvl_w")
"""Sets of the lab with energies of one reference; where an element has frames in several, they are the same."""


@dataclass(frozen=True)
class Metal:
    """One metal and its sets of frames, by the names of their files."""

    symbol: str
    name: str
    fitted: tuple[str, ...]
    source: str  # of the fitted frames, in words
    elsewhere: tuple[tuple[str, str], ...]  # (who, file) of sets that take no part
    shifted: bool = False  # whether the fitted energies are of another reference than the lab's

    @property
    def number(self) -> int:
        """Atomic number."""
        return int(atomic_numbers[self.symbol])


METALS = {
    "W": Metal(
        "W",
        "tungsten",
        ("fitsnap_szlachta_2014_a", "fitsnap_szlachta_2014_b"),
        "Szlachta, Bartók and Csányi, PRB 90, 104108 (2014), as in FitSNAP's examples",
        (("Sandia", "fitsnap_sandia_w"), (LAB, "mvl_w")),
        shifted=True,
    ),
    "Mo": Metal("Mo", "molybdenum", ("mvl_monbtaw",), LAB_SOURCE, ((f"{LAB}, 2017", "mvl_mo_cu_ni"),)),
    "Ta": Metal("Ta", "tantalum", ("mvl_monbtaw",), LAB_SOURCE, ()),
}
DOUBTED = {("Mo", "surface 211")}
"""Values that the data themselves make doubtful; predictions of them stand alone."""


@cache
def frames_of_metal(data: Path, metal: Metal, names: tuple[str, ...]) -> list[Frame]:
    """Frames of the pure metal in files of the folder ``tungsten`` of the data, in their order."""
    pure = []
    for name in names:
        text = gzip.decompress((data / f"tungsten/{name}.extxyz.gz").read_bytes()).decode()
        atoms = read(io.StringIO(text), ":", format="extxyz")
        pure += [one for one in atoms if set(one.numbers) == {metal.number}]
    return frames_of(pure)


def fitted_frames(data: Path, metal: Metal) -> tuple[list[Frame], float]:
    """Frames that are fitted, with energies of the lab's reference, and by what they were shifted, eV/atom."""
    frames = frames_of_metal(data, metal, metal.fitted)
    if not metal.shifted:
        return frames, 0.0
    shift = lab_reference(data, metal)["E_bulk_ev_per_atom"] - min(energy_ev(f) / f.n_atoms for f in frames)
    moved = [replace(f, record=replace(f.record, energy_ev=energy_ev(f) + shift * f.n_atoms)) for f in frames]
    return moved, shift


def frames_elsewhere(data: Path, metal: Metal) -> dict[str, list[Frame]]:
    """Frames of sets that took no part, by who made them; those that also are among the fitted ones are left out."""
    known = {_content(f) for f in frames_of_metal(data, metal, metal.fitted)}
    found = {who: frames_of_metal(data, metal, (name,)) for who, name in metal.elsewhere}
    return {who: [f for f in frames if _content(f) not in known] for who, frames in found.items()}


def _content(frame: Frame) -> tuple[int, float]:
    """What two copies of one calculation agree in."""
    return frame.n_atoms, round(energy_ev(frame), 4)


def lab_reference(data: Path, metal: Metal) -> dict:
    """Lattice constant, elastic constants, surfaces and energy of the bcc metal, derived from the lab's frames."""
    return json.loads((data / "tungsten/mvl_pbe_references.json").read_text())[metal.symbol]


def energy_ev(frame: Frame) -> float:
    """Label of a frame, eV."""
    assert frame.record.energy_ev is not None
    return frame.record.energy_ev
