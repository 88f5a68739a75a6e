"""Where an entry can be looked up."""

from __future__ import annotations

import re

_MATERIALS_PROJECT = re.compile(r"(?:mp|mvc)-[0-9a-z]+")
_PAGE = "https://next-gen.materialsproject.org/materials/"


def entry_url(name: str) -> str | None:
    """Page of an entry by its id; None where the id names no database that has one.

    A run-type suffix (``mp-149-GGA+U``, an entry id of pymatgen) is left out.
    """
    found = _MATERIALS_PROJECT.match(name)
    rest = name[found.end() :] if found else ""
    return _PAGE + found[0] if found and rest in ("", "-GGA", "-GGA+U") else None
