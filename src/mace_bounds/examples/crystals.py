"""Crystals that ship with the package as CIF files, with lattice parameters from textbooks."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "data" / "examples"


def example_files(*names: str) -> list[Path]:
    """Return the CIF files that ship with the package.

    Parameters
    ----------
    *names : str
        Names without the suffix: ``"NaCl"``, ``"TiO2"``; all crystals by default. ``"broken"`` holds two
        atoms on nearly the same place, to see how such a file is refused; it comes only by name.

    Returns
    -------
    list of Path
        In the order of ``names``, or sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such example.
    """
    if not names:
        return sorted(path for path in _FOLDER.glob("*.cif") if path.stem != "broken")
    paths = [_FOLDER / f"{name}.cif" for name in names]
    for path in paths:
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.cif")))
            raise FileNotFoundError(f"there is no example {path.stem!r}; choose one of {known}.")
    return paths


def example_store() -> Path:
    """Return the folder of a feature store that ships with the package: errors of the real MACE-MPA-0.

    782 WBM crystals: ids, formulas, features of ``mini``, DFT energies, and in place of the energies of ``mini``
    those that were published for MACE-MPA-0 after its own relaxation of each crystal. There are no structures in
    it. Heads can be fitted to it and audited without any model.

    Notes
    -----
    Structures and DFT energies: WBM, as in materialsvirtuallab/matcalc (BSD-3-Clause); energies of the model: as
    published by Matbench Discovery (MIT).
    """
    return _FOLDER.parent / "stores" / "mace-mpa-0-published"
