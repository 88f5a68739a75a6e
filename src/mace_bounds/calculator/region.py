"""Which atoms of a cell are the newest, as files for LAMMPS: seeds for mixing potentials in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mace_bounds._io import atomic
from mace_bounds.errors import StructureError


def write_lammps_region(path: str | Path, gamma: ArrayLike, above: float, *, group: str = "novel") -> Path:
    """Write a ranking of atoms for LAMMPS: a per-atom property, and a group of those above a grade.

    ``gamma`` ranks atoms by how unlike the head's data their surroundings are. It is no error bound of atoms or forces,
    for which nothing was calibrated; it says where a dearer potential is most likely to pay.

    Parameters
    ----------
    path : path
        The script to ``include`` after ``read_data``, before which ``atom_modify map yes`` must stand; values go beside
        it, with ``.gamma`` behind its name. Atoms have the ids 1, 2, ... in their order, as
        ``ase.io.write(..., format="lammps-data")`` gives them.
    gamma : array, shape (n_atoms,)
        ``results["gamma"]`` of a :class:`BoundsCalculator`, or the column ``mace_bounds_gamma``.
    above : float
        Atoms with a larger grade are in the group.
    group : str
        Its name. ML-MIX's ``fix mlml`` takes it as its seeds: ``fix mix all mlml 1 4.0 6.0 4.0 group novel``.

    Returns
    -------
    Path
        The script.

    Raises
    ------
    StructureError
        If there are no grades, or no atom is above the limit.
    """
    path, grades = Path(path), np.asarray(gamma, dtype=np.float64)
    if grades.ndim != 1 or not len(grades) or not np.isfinite(grades).all():
        raise StructureError(
            f"gamma has the shape {grades.shape} and must be one finite grade for each atom; use a head that grades "
            "atoms, and a structure that has bounds."
        )
    chosen = np.flatnonzero(grades > above) + 1
    if not len(chosen):
        raise StructureError(
            f"no atom has a grade above {above:g}, the largest is {grades.max():.3g}; choose a lower limit."
        )
    values = path.with_name(f"{path.name}.gamma")
    lines = [f"{len(grades)}", *(f"{k} {grade:.9g}" for k, grade in enumerate(grades, 1))]
    with atomic(values) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")
    ids = [" ".join(map(str, part)) for part in np.array_split(chosen, max(1, len(chosen) // 20))]
    script = [
        f"# ranking of {len(grades)} atoms by novelty, no error bound; {len(chosen)} above {above:g}",
        f"variable {group}_gamma atomfile {values.name}",
        f"fix {group}_gamma all property/atom d_gamma ghost yes",
        f"set group all d_gamma v_{group}_gamma",
        *(f"group {group} id {part}" for part in ids),
    ]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(script) + "\n", encoding="ascii")
    return path
