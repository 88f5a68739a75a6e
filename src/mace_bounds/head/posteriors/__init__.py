"""Where the coefficients may lie around their mean: one file each, behind one interface.

A new posterior is a file with a class that has the methods of :class:`Posterior`, and a line in :data:`POSTERIORS`.
"""

from mace_bounds.head.posteriors.ellipsoid import Ellipsoid
from mace_bounds.head.posteriors.ensemble import Ensemble
from mace_bounds.head.posteriors.hypercube import Hypercube
from mace_bounds.head.posteriors.interface import Posterior, PosteriorRows, stratified_rows

POSTERIORS: dict[str, type[Posterior]] = {
    "hypercube": Hypercube,
    "ensemble": Ensemble,
    "ellipsoid": Ellipsoid,
}
"""Every posterior by its name, the default first: settings, the command line and the benchmark read it."""

__all__ = [
    "POSTERIORS",
    "Ellipsoid",
    "Ensemble",
    "Hypercube",
    "Posterior",
    "PosteriorRows",
    "stratified_rows",
]
