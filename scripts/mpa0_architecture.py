"""Models of mace's own classes with random weights; :data:`MPA_0` is the architecture of MACE-MPA-0."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mace_bounds.backbones.mace import checkpoint as _mace

ATOMIC_NUMBERS = [*range(1, 84), *range(89, 95)]
MPA_0: dict[str, Any] = {
    "r_max": 6.0,
    "num_bessel": 10,
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "128x0e+128x1o",
    "MLP_irreps": "16x0e",
    "correlation": 3,
    "avg_num_neighbors": 40.0,
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
    "use_reduced_cg": False,
}


def build(
    options: dict[str, Any],
    heads: list[str] | None = None,
    seed: int = 0,
    numbers: list[int] = ATOMIC_NUMBERS,
) -> torch.nn.Module:
    """A ``ScaleShiftMACE`` in float64 with random weights, energies of atoms, scale and shift."""
    modules = _mace.import_mace()
    from e3nn import o3

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    values = dict(options)
    values |= {k: o3.Irreps(values[k]) for k in ("hidden_irreps", "MLP_irreps", "edge_irreps") if k in values}
    values |= {
        k: modules.interaction_classes[values[k]] for k in ("interaction_cls", "interaction_cls_first")
    }
    n = len(heads or ["one"])
    energies = rng.normal(-4.0, 2.0, (n, len(numbers)))
    scale, shift = 0.8 + 0.1 * np.arange(n), 0.16 - 0.3 * np.arange(n)
    with _mace.default_dtype(torch.float64), _mace.quiet():
        return modules.ScaleShiftMACE(
            **values,
            num_elements=len(numbers),
            gate=torch.nn.functional.silu,
            atomic_energies=energies if n > 1 else energies[0],
            atomic_numbers=numbers,
            heads=heads,
            atomic_inter_scale=scale.tolist() if n > 1 else float(scale[0]),
            atomic_inter_shift=shift.tolist() if n > 1 else float(shift[0]),
        )
