"""The file of entries, one JSON object a line, and the count of what is in it."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from ase.data import atomic_numbers

from mace_bounds.structures import REFUSED, licence_flags, potential_titles, ytterbium_flags

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from mace_bounds.materials_project.query import Range

LISTED = 50  # ids named in the summary; the file has them all


class EntriesFile:
    """Writes entries under a temporary name; leaving the context without an error puts the file in its place.

    Equal entries give equal bytes: there is neither name nor time in the compressed stream.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.tmp")
        self._raw: IO[bytes] = self._temporary.open("wb")
        packed = path.name.endswith(".gz")
        self._file: Any = (
            gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0, compresslevel=6) if packed else self._raw
        )

    def write(self, entry: dict[str, Any]) -> None:
        """Write one line."""
        self._file.write(dump_line(entry))

    def __enter__(self) -> EntriesFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not self._raw:
            self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink()


def dump_line(entry: dict[str, Any]) -> bytes:
    """Return an entry as one line of JSON."""
    try:
        import orjson

        return orjson.dumps(entry) + b"\n"
    except (ImportError, TypeError):
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n"


class Tally:
    """Which entries are kept, and what the summary says of them.

    Parameters
    ----------
    nsites : (float or None, float or None), optional
        Least and largest number of atoms.
    ids : set of str
        Ids that were asked for.
    """

    def __init__(self, nsites: Range | None = None, ids: frozenset[str] = frozenset()) -> None:
        self._nsites, self._missing = nsites, set(ids)
        self.kept = self.documents = 0
        self._flags, self._run_types, self._licences = Counter[str](), Counter[str](), Counter[str]()
        self._refused: list[dict[str, str]] = []
        self._n_refused = 0

    def keeps(self, entry: dict[str, Any]) -> bool:
        """Count an entry and tell whether it belongs into the file."""
        self.documents += 1
        data, parameters = entry["data"], entry.get("parameters") or {}
        name = str(data.get("material_id") or entry["entry_id"])
        self._missing.discard(name)
        n = len((entry.get("structure") or {}).get("sites") or ())
        low, high = self._nsites or (None, None)
        if n and ((low is not None and n < low) or (high is not None and n > high)):
            return False
        self.kept += 1
        if REFUSED in data:
            self._n_refused += 1
            if self._n_refused <= LISTED:
                self._refused.append({"id": name, "reason": data[REFUSED]})
        self._run_types[str(parameters.get("run_type") or "not stated")] += 1
        self._licences[str(data.get("license") or "not stated")] += 1
        titles = parameters.get("potcar_symbols") or potential_titles(parameters)
        numbers = [atomic_numbers.get(symbol, 0) for symbol in entry.get("composition") or {}]
        self._flags.update(
            licence_flags(name, data.get("license")) + ytterbium_flags(name, numbers, list(titles))
        )
        return True

    def told(self) -> dict[str, Any]:
        """Return the counts as the summary has them."""
        told: dict[str, Any] = {
            "counts": {
                "documents": self.documents,
                "outside_nsites": self.documents - self.kept,
                "structures": self.kept,
                "labelled": self.kept - self._n_refused,
                "label_refused": self._n_refused,
            },
            "run_types": dict(sorted(self._run_types.items())),
            "licences": dict(sorted(self._licences.items())),
            "flags": dict(sorted(self._flags.items())),
            "label_refused": self._refused,
        }
        if self._missing:
            told["counts"]["not_found"] = len(self._missing)
            told["not_found"] = sorted(self._missing, key=_natural)[:LISTED]
        return told


def _natural(name: str) -> tuple[str, int, str]:
    digits = re.search(r"\d+$", name)
    return (name[: digits.start()], int(digits[0]), "") if digits else (name, -1, name)
