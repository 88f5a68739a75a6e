"""From uncertain readout weights to uncertain properties: curves, implicit differentiation, resampling."""

from mace_bounds.propagation.cells import at_volumes, deformed, rotated
from mace_bounds.propagation.defects import (
    interstitial_formation,
    relaxed_positions,
    surface_energy,
    vacancy_formation,
)
from mace_bounds.propagation.elastic import (
    ElasticConstants,
    elastic_constants,
    elastic_curves,
    hill_averages,
)
from mace_bounds.propagation.eos import (
    EquationsOfState,
    curves,
    equation_of_state,
    equilibrium_response,
    fit_equations_of_state,
)
from mace_bounds.propagation.faults import fault_path, gamma_line
from mace_bounds.propagation.implicit import Minimum, minimum
from mace_bounds.propagation.measured import ErrorModel, MeasuredErrors, measured_errors
from mace_bounds.propagation.phases import phase_energies, transition_pressures_gpa
from mace_bounds.propagation.phonons import ForceConstants, force_constants, phonon_frequencies
from mace_bounds.propagation.potential import Potential, Rows
from mace_bounds.propagation.propagate import PropagateSettings, PropertyName, propagate
from mace_bounds.propagation.resample import resample
from mace_bounds.propagation.result import EV_A3_IN_GPA, PropertyBounds
from mace_bounds.propagation.stencil import Stencil, central_stencil
from mace_bounds.propagation.surface import EnergySurface

__all__ = [
    "EV_A3_IN_GPA",
    "ElasticConstants",
    "EnergySurface",
    "EquationsOfState",
    "ErrorModel",
    "ForceConstants",
    "MeasuredErrors",
    "Minimum",
    "Potential",
    "PropagateSettings",
    "PropertyBounds",
    "PropertyName",
    "Rows",
    "Stencil",
    "at_volumes",
    "central_stencil",
    "curves",
    "deformed",
    "elastic_constants",
    "elastic_curves",
    "equation_of_state",
    "equilibrium_response",
    "fault_path",
    "fit_equations_of_state",
    "force_constants",
    "gamma_line",
    "hill_averages",
    "interstitial_formation",
    "measured_errors",
    "minimum",
    "phase_energies",
    "phonon_frequencies",
    "propagate",
    "relaxed_positions",
    "resample",
    "rotated",
    "surface_energy",
    "transition_pressures_gpa",
    "vacancy_formation",
]
