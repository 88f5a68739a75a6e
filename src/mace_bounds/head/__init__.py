"""POPS: a linear correction of the energy of MACE with misspecification bounds, as algebra on arrays."""

from ._chunks import Chunks, array_chunks
from ._config import PopsConfig
from ._design import Design, make_design
from ._folder import check_head_target, is_head_folder, read_head_folder, write_head
from ._head import PopsFit, PopsHead, PopsPrediction
from ._linear import LinearFit, factorise, fit_linear
from ._maxvol import ActiveSet, active_set, maxvol
from ._pops import fit_pops
from ._predict import predict, sample_coefficients, whitened
from ._robust import fit_robust, huber_weights
from ._tsqr import TsqrFactor

__all__ = [
    "ActiveSet",
    "Chunks",
    "Design",
    "LinearFit",
    "PopsConfig",
    "PopsFit",
    "PopsHead",
    "PopsPrediction",
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
    "make_design",
    "maxvol",
    "predict",
    "read_head_folder",
    "sample_coefficients",
    "whitened",
    "write_head",
]
