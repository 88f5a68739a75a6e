"""POPS: a linear correction of the energy of the frozen model with misspecification bounds, as algebra on arrays."""

from mace_bounds.head.chunks import Chunks, TsqrFactor, array_chunks
from mace_bounds.head.config import PopsConfig
from mace_bounds.head.folder import (
    BESIDE,
    CONFIG,
    SMALLEST,
    TENSORS,
    check_head_target,
    is_head_folder,
    read_beside,
    read_head_folder,
    read_tensor,
    tensors_named,
    tensors_under,
    write_head,
)
from mace_bounds.head.linear import Design, factorise, fit_linear, make_design
from mace_bounds.head.maximum_volume import ActiveSet, active_set
from mace_bounds.head.numerics import MAD_TO_STD, FitWarning, kept_warnings, minimise, weighted_quantile
from mace_bounds.head.pops_fit import fit_pops, fit_robust, huber_weights
from mace_bounds.head.pops_head import Coefficients, PopsFit, PopsHead, PopsPrediction, Ridge, predict
from mace_bounds.head.posteriors import POSTERIORS, Posterior, PosteriorRows

__all__ = [
    "BESIDE",
    "CONFIG",
    "MAD_TO_STD",
    "POSTERIORS",
    "SMALLEST",
    "TENSORS",
    "ActiveSet",
    "Chunks",
    "Coefficients",
    "Design",
    "FitWarning",
    "PopsConfig",
    "PopsFit",
    "PopsHead",
    "PopsPrediction",
    "Posterior",
    "PosteriorRows",
    "Ridge",
    "TsqrFactor",
    "active_set",
    "array_chunks",
    "check_head_target",
    "factorise",
    "fit_linear",
    "fit_pops",
    "fit_robust",
    "huber_weights",
    "is_head_folder",
    "kept_warnings",
    "make_design",
    "minimise",
    "predict",
    "read_beside",
    "read_head_folder",
    "read_tensor",
    "tensors_named",
    "tensors_under",
    "weighted_quantile",
    "write_head",
]
