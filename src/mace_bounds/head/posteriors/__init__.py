"""Where the coefficients may lie around their mean: hypercube, ensemble, ellipsoid, behind one interface.

All of them live in principal coordinates b: the coefficients are w + W b, with the head's axes W as columns.
A row z of fitted columns has the projections zᵀW, and the deviation of its prediction from the mean is
(zᵀW) b. So one product per row serves every posterior.
"""

from mace_bounds.head.posteriors.box import Box, CorrectionAxes, Corrections, fit_axes
from mace_bounds.head.posteriors.ellipsoid import Ellipsoid
from mace_bounds.head.posteriors.ellipsoid_fit import fit_ellipsoid, generalisation_error
from mace_bounds.head.posteriors.ensemble import Ensemble
from mace_bounds.head.posteriors.interface import Posterior
from mace_bounds.head.posteriors.subsample import stratified_rows

__all__ = [
    "Box",
    "CorrectionAxes",
    "Corrections",
    "Ellipsoid",
    "Ensemble",
    "Posterior",
    "fit_axes",
    "fit_ellipsoid",
    "generalisation_error",
    "stratified_rows",
]
