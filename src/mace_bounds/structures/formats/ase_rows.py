"""What ase writes: trajectories, databases and JSON; arrays are read, objects are never made from the file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mace_bounds.errors import StructureError
from mace_bounds.structures.check import too_many_atoms
from mace_bounds.structures.crystal import Record, crystal_of, require_periodic
from mace_bounds.structures.formats.base import DEFAULTS, Format, ReadOptions
from mace_bounds.structures.formats.entries import record_of_values
from mace_bounds.structures.text import as_mapping, clean, one_line

_DFT = {
    "vasp", "vasp2", "gpaw", "espresso", "aims", "castep", "abinit", "siesta", "cp2k", "crystal", "elk", "fleur",
    "dmol",    "octopus", "nwchem", "exciting", "openmx", "qchem", "onetep", "wien2k", "jdftx", "dacapo", "jacapo",
    "unknown", "none",
}  # fmt: skip
"""Names of calculators in ase that compute (or may have computed) by density-functional theory."""
_PBE = {"pbe", "gga", "pe"}
_ID_KEYS = ("material_id", "mat_id", "mp_id", "name", "id")
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, EOFError)
_COLUMNS = (
    "id", "numbers", "positions", "cell", "pbc", "calculator", "calculator_parameters", "energy", "key_value_pairs",
)  # fmt: skip


def is_ase_row(value: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary is a row of an ase database in JSON."""
    return "numbers" in value and "positions" in value and "cell" in value


def record_of_row(row: Mapping[str, Any], energy_key: str | None, name: str) -> Record:
    """Return the record of one structure as ase writes it.

    Parameters
    ----------
    row : mapping
        ``numbers``, ``positions``, ``cell``, ``pbc``, ``energy``, ``calculator``, ``calculator_parameters`` and
        ``key_value_pairs``; arrays plain or as ase's JSON has them.
    energy_key : str, optional
        Key of the label among the key-value pairs, or ``energy``.
    name : str
        Its id where the pairs hold none.

    Raises
    ------
    StructureError
        If it is no crystal; what is damaged raises ``ValueError`` and the like.
    """
    pairs = as_mapping(row.get("key_value_pairs"))
    numbers = _array(row["numbers"]).astype(np.int64)
    cell = _array(row["cell"])
    cell = np.diag(cell) if cell.shape == (3,) else cell
    require_periodic(_array(row.get("pbc", [False] * 3)).astype(bool), has_cell=bool(np.any(cell)))
    crystal = crystal_of(numbers, _array(row["positions"]), cell)
    name = next((str(pairs[key]) for key in _ID_KEYS if isinstance(pairs.get(key), (str, int))), name)
    info = {**pairs, **({} if row.get("energy") is None else {"energy": row["energy"]})}
    record = record_of_values(info, crystal, (), energy_key, name=name)
    reason = None
    if record.label_kind == "energy":
        reason = calculator_reason(row.get("calculator"), as_mapping(row.get("calculator_parameters")))
    if reason is not None:
        record = replace(record, energy_ev=None, label_kind=None, label_reason=reason)
    return record


def calculator_reason(name: object, parameters: Mapping[str, Any]) -> str | None:
    """Return why the energy of a calculator is no PBE(+U) label, or None if nothing speaks against it."""
    known = str(name or "unknown").lower()
    if known not in _DFT:
        return (
            f"the energy comes from the calculator {clean(known, 40)!r}, which is no DFT; name the key of the DFT "
            "energy (--energy-key)."
        )
    xc = next(
        (parameters[key] for key in ("xc", "pp", "gga", "metagga", "input_dft") if parameters.get(key)), None
    )
    if parameters.get("metagga") or parameters.get("lhfcalc") or parameters.get("ivdw"):
        xc = parameters.get("metagga") or ("a hybrid" if parameters.get("lhfcalc") else "PBE with dispersion")
    if isinstance(xc, str) and xc.lower() not in _PBE:
        return f"the energy was computed with {clean(xc, 40)!r}, not with PBE or PBE+U; take PBE energies."
    return None


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers that are a list, an array, or an array in ase's JSON (under ``array`` for cells)."""
    if isinstance(value, dict) and "array" in value:
        value = value["array"]
    if isinstance(value, dict):
        shape, _, data = value["__ndarray__"]
        return np.array(data, dtype=np.float64).reshape([int(n) for n in shape])
    return np.array(value, dtype=np.float64)


def parse_trajectory(path: Path, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per frame of an ase trajectory; arrays and JSON are read, nothing is unpickled."""
    from ase.io import ulm

    with path.open("rb") as handle:
        try:
            frames = ulm.Reader(handle)
            tag = frames.get_tag()
        except (OSError, ulm.InvalidULMFileError, *_DAMAGE) as error:
            raise StructureError(f"the trajectory is damaged ({one_line(error)}); fetch it again.") from None
        if tag != "ASE-Trajectory":
            raise StructureError(
                f"the file is of {clean(tag, 30)!r} of ase, not a trajectory; write a .traj file."
            )
        header: dict[str, Any] = {}
        size = path.stat().st_size
        for index in range(len(frames)):
            try:
                yield _frame(frames[index], header, size, options)
            except StructureError as error:
                yield Record.failed(str(error))
            except (OSError, *_DAMAGE) as error:
                yield Record.failed(
                    f"frame {index} is damaged ({type(error).__name__}: {one_line(error, 80)}); fetch it again."
                )


def _frame(frame: Any, header: dict[str, Any], size: int, options: ReadOptions) -> Record:
    for key in ("numbers", "positions", "pbc"):
        stored = frame._data.get(key)
        if getattr(stored, "nbytes", 0) > size or np.dtype(getattr(stored, "dtype", float)).hasobject:
            raise StructureError("an array of the frame is larger than the file; fetch it again.")
    if "numbers" in frame:
        header.update(numbers=frame.numbers, pbc=frame.pbc)
    if options.max_atoms is not None and len(header["numbers"]) > options.max_atoms:
        raise StructureError(too_many_atoms(len(header["numbers"]), options.max_atoms))
    calculator = frame.get("calculator")
    row = {
        **header,
        "positions": frame.positions,
        "cell": frame.cell,
        "key_value_pairs": frame.get("info"),
        "energy": calculator.get("energy") if calculator is not None else None,
        "calculator": calculator.get("name") if calculator is not None else None,
        "calculator_parameters": calculator.get("parameters") if calculator is not None else None,
    }
    return record_of_row(row, options.energy_key, "")


def parse_database(path: Path, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """Yield one record per row of an ase database (SQLite), which is opened for reading only."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            names = {row[1] for row in database.execute("PRAGMA table_info(systems)")}
            if not set(_COLUMNS) <= names:
                raise StructureError(
                    "the SQLite file is no database of ase; export its structures as extxyz."
                )
            query = f"SELECT {', '.join(_COLUMNS)} FROM systems ORDER BY id"
            for values in database.execute(query):
                row = dict(zip(_COLUMNS, values, strict=True))
                try:
                    yield _row(row, options)
                except StructureError as error:
                    yield Record.failed(str(error))
                except _DAMAGE as error:
                    yield Record.failed(
                        f"row {row['id']} is damaged ({type(error).__name__}: {one_line(error, 80)}); export it again."
                    )
    except (sqlite3.Error, *_DAMAGE) as error:
        raise StructureError(f"the database is damaged ({one_line(error)}); fetch it again.") from None


def _row(row: dict[str, Any], options: ReadOptions) -> Record:
    numbers = np.frombuffer(row["numbers"], dtype="<i4")
    if options.max_atoms is not None and len(numbers) > options.max_atoms:
        raise StructureError(too_many_atoms(len(numbers), options.max_atoms))
    pbc = int(row["pbc"] or 0)
    row.update(
        numbers=numbers,
        positions=np.frombuffer(row["positions"], dtype="<f8").reshape(-1, 3),
        cell=np.frombuffer(row["cell"], dtype="<f8").reshape(3, 3) if row["cell"] else np.zeros((3, 3)),
        pbc=[pbc & 1, pbc & 2, pbc & 4],
        key_value_pairs=json.loads(row["key_value_pairs"] or "{}"),
        calculator_parameters=json.loads(row["calculator_parameters"] or "{}"),
    )
    return record_of_row(row, options.energy_key, "")


TRAJECTORY = Format(
    name="ase trajectory",
    suffixes=(".traj",),
    sniff=lambda data: data.startswith(b"- of UlmASE-Trajectory"),
    parse=parse_trajectory,
    takes="file",
    help="ase .traj",
    labels="`energy` of a DFT calculator, or a key of `info`",
)
DATABASE = Format(
    name="ase database",
    suffixes=(".db",),
    sniff=lambda data: data.startswith(b"SQLite format 3\0"),
    parse=parse_database,
    takes="file",
    help="ase .db",
    max_bytes=20_000_000_000,
    labels="`energy` of a DFT calculator, or a key-value pair",
)
