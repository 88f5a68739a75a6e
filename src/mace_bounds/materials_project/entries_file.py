"""The file of entries, one JSON object a line, and the count of what is in it."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
from ase.data import atomic_numbers

from mace_bounds._io import atomic
from mace_bounds.structures import REFUSED, licence_flags, potential_titles, ytterbium_flags

if TYPE_CHECKING:
    from mace_bounds.materials_project.query import Range

LISTED = 50  # ids named in the summary; the file has them all


@contextmanager
def entries_file(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes one entry; the file is there when the context is left without an error.

    Equal entries give equal bytes: there is neither name nor time in the compressed stream.
    """
    with atomic(path) as temporary, temporary.open("wb") as raw:
        if not path.name.endswith(".gz"):
            yield lambda entry: _write_line(raw, entry)
            return
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
            yield lambda entry: _write_line(packed, entry)


def _write_line(file: IO[bytes] | gzip.GzipFile, entry: dict[str, Any]) -> None:
    file.write(dump_line(entry))


def dump_line(entry: dict[str, Any]) -> bytes:
    """Return an entry as one line of JSON; what JSON does not know (times in a table) becomes text."""
    return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)


class Tally:
    """Decides which entries are kept, and counts them for the summary.

    ``nsites``: least and largest number of atoms; ``ids``: ids that the query names.
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

    def summary(self) -> dict[str, Any]:
        """Return the counts as the summary has them."""
        summary: dict[str, Any] = {
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
            summary["counts"]["not_found"] = len(self._missing)
            summary["not_found"] = sorted(self._missing, key=_natural)[:LISTED]
        return summary


def _natural(name: str) -> tuple[str, int, str]:
    digits = re.search(r"\d+$", name)
    return (name[: digits.start()], int(digits[0]), "") if digits else (name, -1, name)
