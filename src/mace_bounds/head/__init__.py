"""POPS: a linear correction of the energy of MACE with misspecification bounds, as algebra on arrays."""

from ._chunks import Chunks, array_chunks
from ._config import PopsConfig
from ._folder import is_head_folder, read_head_folder, write_head
from ._head import PopsFit, PopsHead, PopsPrediction
from ._pops import factorise, fit_pops
from ._predict import predict, sample_coefficients
from ._robust import fit_robust, huber_weights
from ._tsqr import TsqrFactor

__all__ = [
    "Chunks",
    "PopsConfig",
    "PopsFit",
    "PopsHead",
    "PopsPrediction",
    "TsqrFactor",
    "array_chunks",
    "factorise",
    "fit_pops",
    "fit_robust",
    "huber_weights",
    "is_head_folder",
    "predict",
    "read_head_folder",
    "sample_coefficients",
    "write_head",
]
