"""POPS: a linear correction of the energy of the frozen model with misspecification bounds, as algebra on arrays."""

from mace_bounds.head.chunks import (
    Chunks,
    array_chunks,
)
from mace_bounds.head.config import (
    PopsConfig,
)
from mace_bounds.head.design import (
    Design,
    make_design,
)
from mace_bounds.head.folder import (
    check_head_target,
    is_head_folder,
    read_head_folder,
    write_head,
)
from mace_bounds.head.linear import (
    LinearFit,
    factorise,
    fit_linear,
)
from mace_bounds.head.maximum_volume import (
    ActiveSet,
    active_set,
    maxvol,
)
from mace_bounds.head.pops_fit import (
    fit_pops,
)
from mace_bounds.head.pops_head import (
    PopsFit,
    PopsHead,
    PopsPrediction,
)
from mace_bounds.head.prediction import (
    predict,
    sample_coefficients,
    whitened,
)
from mace_bounds.head.robust import (
    fit_robust,
    huber_weights,
)
from mace_bounds.head.tsqr import (
    TsqrFactor,
)

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
