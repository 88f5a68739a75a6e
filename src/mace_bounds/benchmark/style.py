"""Names, colours and marks of the methods of a comparison: the same in every plot and table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PRODUCT, PRODUCT_SPLIT, REFERENCE, SCALE_PREFIX = "mace_bounds", "mace_bounds_split", "constant", "scale_"


@dataclass(frozen=True)
class MethodStyle:
    """How a method is shown: its name in words, colour and marker."""

    label: str
    colour: str
    marker: str


# what this package makes in blues, POPS as it is in greens, other people's methods in warm colours and greys
_STYLES = {
    PRODUCT: MethodStyle("mace-bounds", "#0072B2", "*"),
    PRODUCT_SPLIT: MethodStyle("mace-bounds, split conformal", "#4F9BD0", "*"),
    "pops_hypercube": MethodStyle("POPS hypercube", "#009E73", "o"),
    "pops_ensemble": MethodStyle("POPS ensemble", "#44AA99", "s"),
    "pops_support": MethodStyle("POPS support", "#117733", "^"),
    "pops_ellipsoid": MethodStyle("POPS ellipsoid", "#7FB800", "D"),
    "popsregression": MethodStyle("popsregression", "#999933", "v"),
    "constant": MethodStyle("constant width", "#333333", "o"),
    "bayesian_ridge": MethodStyle("Bayesian ridge", "#E69F00", "s"),
    "bayesian_ridge_noise": MethodStyle("Bayesian ridge + noise", "#B8860B", "^"),
    "llpr": MethodStyle("LLPR", "#D55E00", "D"),
    "committee": MethodStyle("committee of heads", "#CC79A7", "v"),
    "d_optimality": MethodStyle("D-optimality γ", "#882255", "P"),
    "d_optimality_local": MethodStyle("D-optimality γ, local", "#AA4499", "X"),
    "quantile": MethodStyle("quantile regression", "#CC3311", "p"),
}
_SCALE_COLOURS = ("#56B4E9", "#6699CC", "#332288", "#4477AA", "#88CCEE", "#225588", "#77AADD", "#004488")
_SCALE_MARKERS = "osD^vPXp"
_OTHER = "#8A8A8A"


def method_styles(names: Iterable[str]) -> dict[str, MethodStyle]:
    """Style of each method; scales are coloured in the order of their names."""
    names = list(names)
    scales = sorted(name for name in names if name.startswith(SCALE_PREFIX))
    return {name: _STYLES.get(name) or _unnamed(name, scales) for name in names}


def _unnamed(name: str, scales: list[str]) -> MethodStyle:
    if name not in scales:
        return MethodStyle(name.replace("_", " "), _OTHER, "o")
    place = scales.index(name)
    label = f"scale {name.removeprefix(SCALE_PREFIX).replace('_', ' ')}"
    return MethodStyle(
        label, _SCALE_COLOURS[place % len(_SCALE_COLOURS)], _SCALE_MARKERS[place % len(_SCALE_MARKERS)]
    )
