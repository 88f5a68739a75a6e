"""Runs of VASP: vasprun.xml and OUTCAR, every ionic step with its energy; XDATCAR is in ``poscar.py``.

The label is the energy for sigma to 0, as in the Materials Project (``final_energy`` of pymatgen's ``Vasprun``), of a
converged PBE or PBE+U calculation.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from mace_bounds.errors import LabelError, StructureError
from mace_bounds.structures.crystal import Record
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions, beginning
from mace_bounds.structures.formats.objects import records_of_object
from mace_bounds.structures.labels import (
    Label,
    find_label,
    functional_of,
    guard_label,
    to_energy,
    ytterbium_flags,
)
from mace_bounds.structures.text import clean, one_line

_PBE = {"PBE", "GGA", "PBE+U", "GGA+U"}
_ITERATION = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
_TITEL = re.compile(r"(?:TITEL\s*=|POTCAR:)\s*(PAW\S*[ \t]+\S+(?:[ \t]+\S+)?)")
_MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class _Run:
    """What a run says of itself: run type, U, potentials, and the limit of electronic steps."""

    run_type: str
    u: str = ""
    titles: tuple[str, ...] = ()
    nelm: int = 60
    learned: bool = False

    def label(self, energy_ev: Any, n_steps: int, energy_key: str | None) -> Label:
        """Return the label of an ionic step with so many electronic steps, or why it is none."""
        if energy_key is not None:
            return find_label(
                {"energy": energy_ev, "e_0_energy": energy_ev}, energy_key, run_type=self._known()
            )
        if self.learned:
            return Label(
                reason="VASP took the energies from its machine-learned force field (ML_LMLFF); give runs without it."
            )
        if n_steps >= self.nelm:
            return Label(
                reason=f"the electronic steps did not converge within NELM = {self.nelm}; converge the calculation."
            )
        try:
            potentials = {"potcar_spec": [{"titel": title} for title in self.titles]}
            energy, kind = guard_label(
                energy_ev, run_type=self._known(), functional=functional_of(potentials)
            )
        except LabelError as error:
            return Label(reason=str(error))
        return Label(energy, f"{kind}{self.u}, sigma to 0")

    def _known(self) -> str:
        """Return the run type in the words of the Materials Project where it is PBE(+U)."""
        return self.run_type.replace("PBE", "GGA") if self.run_type in _PBE else self.run_type

    def record(self, structure: Any, label: Label) -> Record:
        """Return the record of a step."""
        (record,) = records_of_object(structure)
        if record.crystal is None:
            return record
        return replace(
            record,
            **label.fields,
            run_type=clean(self._known(), 40),
            flags=record.flags + ytterbium_flags("", list(record.crystal.counts), self.titles),
        )


def parse_vasprun(path: Path, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per ionic step of a vasprun.xml (read by pymatgen)."""
    from pymatgen.io.vasp.outputs import Vasprun

    cut = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run = Vasprun(
                path,
                parse_dos=False,
                parse_eigen=False,
                parse_potcar_file=False,
                exception_on_bad_xml=False,
            )
            about = _about_vasprun(run)
            steps = list(run.ionic_steps)
        except Exception as error:
            raise StructureError(
                f"the vasprun.xml is damaged or cut ({type(error).__name__}: {one_line(error, 80)}); fetch it again, "
                "or give the CONTCAR."
            ) from None
        cut = any("malformed" in str(warning.message) for warning in caught)
    if not steps:
        raise StructureError("the vasprun.xml holds no finished ionic step; give the CONTCAR of the run.")
    for step in steps:
        electronic = step.get("electronic_steps") or []
        yield about.record(
            step["structure"], about.label(_energy_of(step), len(electronic), options.energy_key)
        )
    if cut:
        yield Record.failed(
            "the vasprun.xml is cut off after the steps above; fetch it again, or finish the run."
        )


def _about_vasprun(run: Any) -> _Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_type = str(run.run_type)
    values = ", ".join(f"{symbol} {u:g}" for symbol, u in sorted(run.hubbards.items()) if u)
    nelm = run.parameters.get("NELM", run.incar.get("NELM", 60))
    return _Run(
        run_type,
        f" (U in eV: {values})" if values else "",
        tuple(str(title) for title in run.potcar_symbols),
        int(nelm),
        bool(run.incar.get("ML_LMLFF")),
    )


def _energy_of(step: Mapping[str, Any]) -> float | None:
    """Return E0 of an ionic step, eV; as pymatgen mends what some versions of VASP write in its place."""
    try:
        last = step["electronic_steps"][-1]
        return round(float(last["e_0_energy"] - last["e_fr_energy"] + step["e_fr_energy"]), 8)
    except (KeyError, IndexError, TypeError):
        return to_energy(step.get("e_0_energy"))


def parse_outcar(path: Path, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per ionic step of an OUTCAR (read by ase)."""
    from ase.io.vasp_parsers.vasp_outcar_parsers import OutcarHeaderParser, outcarchunks

    with path.open(encoding="utf-8", errors="replace") as handle:
        about = _about_outcar(_header(path))
        index = 0
        chunks = outcarchunks(handle, header_parser=OutcarHeaderParser())
        while True:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    chunk = next(chunks, None)
                    if chunk is None:
                        break
                    atoms = chunk.build()
            except Exception as error:
                raise StructureError(
                    f"the OUTCAR is damaged or cut in step {index} ({type(error).__name__}: {one_line(error, 80)}); "
                    "fetch it again, or give the CONTCAR."
                ) from None
            text = "".join(chunk.lines)
            steps = [int(number) for number in _ITERATION.findall(text)]
            n_steps = about.nelm if "EDIFF was not reached" in text else max(steps, default=1)
            energy = atoms.calc.results.get("energy")
            dispersion = replace(about, run_type=f"{about.run_type}+vdW") if "Edisp (eV)" in text else about
            yield dispersion.record(atoms, dispersion.label(energy, n_steps, options.energy_key))
            index += 1
    if not index:
        raise StructureError("the OUTCAR holds no finished ionic step; give the CONTCAR of the run.")


def _header(path: Path) -> str:
    """Return what stands before the first electronic step."""
    with path.open(encoding="utf-8", errors="replace") as handle:
        return "".join(takewhile(lambda line: "Iteration" not in line, handle))


def _about_outcar(header: str) -> _Run:
    """Read what an OUTCAR says before its first step: the INCAR as newer versions of VASP echo it, what is used."""

    def words(key: str) -> list[str]:
        return [word.strip(".") for word in re.findall(rf"(?m)(?:^|;)[ \t]*{key}\s*=[ \t]*([^\s;]+)", header)]

    def word(key: str) -> str:
        return (words(key) or [""])[-1]

    def is_on(key: str) -> bool:
        return word(key)[:1].upper() == "T"

    run_type = {"--": "GGA", "": "GGA", "PE": "PBE"}.get(word("GGA"), word("GGA"))
    if run_type == "GGA" and word("LEXCH") not in ("", "8", "PE"):
        run_type = f"LEXCH = {word('LEXCH')}"  # of the potentials: 8 is PBE
    # the echo names the functional; what follows is only whether it was added afterwards
    if meta := [name for name in words("METAGGA") if name.upper() not in ("F", "FALSE", "--", "NONE")]:
        run_type = meta[0]
    if is_on("LHFCALC"):
        run_type = "hybrid"
    named = _hubbard(header)
    if named:
        run_type += "+U"
    if word("IVDW") not in ("", "0") or is_on("LUSE_VDW"):
        run_type += "+vdW"
    nelm = word("NELM")
    return _Run(
        run_type,
        f" (U in eV: {named})" if named else "",
        tuple(dict.fromkeys(clean(title) for title in _TITEL.findall(header))),
        int(nelm) if nelm.isdecimal() else 60,
        is_on("ML_LMLFF"),
    )


def _hubbard(header: str) -> str:
    """Return U - J by element, ``Fe 5.3``, as it was used; empty without any."""
    if "LDA+U is selected" not in header:
        return ""

    def values(key: str) -> list[float]:
        found = re.findall(rf"{key}\s*=\s*([-\d. \t]+)", header)
        return [float(value) for value in found[-1].split()] if found else []

    # one of each species, which may be the same element twice
    species = re.findall(r"TITEL\s*=\s*\S+[ \t]+(\S+)", header) or [
        title.split()[1] for title in dict.fromkeys(_TITEL.findall(header)) if len(title.split()) > 1
    ]
    u, j = values("LDAUU"), values("LDAUJ")
    found = {
        name.split("_")[0]: u_ev - j_ev
        for name, u_ev, j_ev in zip(species, u, [*j, *[0.0] * len(u)], strict=False)
        if u_ev - j_ev
    }
    return ", ".join(f"{symbol} {value:g}" for symbol, value in sorted(found.items()))


VASPRUN = Format(
    name="vasprun.xml",
    suffixes=(),
    file_names=r"vasprun.*\.xml",
    sniff=lambda data: "<modeling>" in beginning(data)[:2000],
    parse=parse_vasprun,
    takes="file",
    max_bytes=_MAX_BYTES,
    labels="energy for sigma to 0 of converged PBE or PBE+U steps",
)
OUTCAR = Format(
    name="OUTCAR",
    suffixes=(),
    file_names=r"OUTCAR([._-].*)?",
    sniff=lambda data: re.match(r"\s*vasp\.\d", beginning(data)) is not None,
    parse=parse_outcar,
    takes="file",
    max_bytes=_MAX_BYTES,
    labels="energy for sigma to 0 of converged PBE or PBE+U steps",
)
