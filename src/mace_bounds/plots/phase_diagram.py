"""Phase diagrams of two and three elements: the hull, and crystals with what is not sure about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mace_bounds.plots.style import BLUE, GREY, INK, finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

FADED = 0.15
"""Opacity of a phase that is surely not on the hull."""
_MOST_NAMED = 17  # with the three corners
_ROOM = 0.085  # between the names of a triangle of side 1
_FAR_MEV = 200.0  # meV/atom above the hull at which colours end


def plot_phase_diagram(table: pd.DataFrame, phases: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Plot the candidates of a hull of two or three elements over the hull of its phases.

    ``table``, ``phases``: of a :class:`mace_bounds.bounds.Hull` whose phases hold every element; ``ax``: a new figure
    by default. Candidates are at their expected energies, with standard deviations; the darker, the more of the
    distribution of the distance is below the hull. Raises ValueError for another number of elements, or without a phase
    of each.
    """
    good = table[table["reason"].isna()]
    elements, shares, energies = _formation(phases, good)
    (of_phases, of_candidates), (formed, candidates) = shares, energies
    std, distance, spread = (
        good[name].to_numpy(dtype=float)
        for name in ("std_energy_ev_per_atom", "e_above_hull_ev_per_atom", "std_ev_per_atom")
    )
    shade = ndtr(-distance / np.maximum(spread, 1e-9))
    if len(elements) == 2:
        lower = (of_phases[:, 1], formed)
        ax = plot_binary_hull(of_candidates[:, 1], candidates, std, shade, elements, lower, ax)
        deepest = min(float(formed.min()), -_FAR_MEV / 1000)
        ax.set_ylim(1.25 * deepest, -0.5 * deepest)  # what lies far above is of no interest
        return ax
    names = good["formula"].tolist()
    ax = plot_ternary_hull(of_candidates, candidates, shade, elements, (of_phases, formed), ax)
    above = candidates - _height(*_lower_hull(_plane(of_phases), formed), _plane(of_candidates))
    _write_names(ax, _plane(of_candidates), 1000 * above, 1000 * std, names)
    return ax


def _write_names(ax: Axes, place: Array, above: Array, std: Array, names: Sequence[str]) -> None:
    """Names of the points nearest to the hull, one at each place, with distance and standard deviation, meV/atom."""
    taken = list(_plane(np.eye(3)))
    for k in np.argsort(above, kind="stable"):
        near = above[k] <= _FAR_MEV / 2
        if (
            near
            and len(taken) < _MOST_NAMED
            and all(np.linalg.norm(place[k] - other) > _ROOM for other in taken)
        ):
            taken.append(place[k])
            text = f"{names[k]}\n{above[k]:+.0f} ± {std[k]:.0f}"
            ax.annotate(text, place[k], xytext=(4, 3), textcoords="offset points", fontsize=6, color=INK)


def _formation(
    *tables: pd.DataFrame,
) -> tuple[list[str], tuple[Array, Array], tuple[Array, Array]]:
    """Elements, atomic shares and formation energies, of the phases and of the candidates."""
    from pymatgen.core import Composition

    parts = [[Composition(formula).fractional_composition for formula in t["formula"]] for t in tables]
    elements = sorted({e.symbol for part in parts for c in part for e in c.elements})
    shares = [np.array([[float(c[e]) for e in elements] for c in part]) for part in parts]
    values = [t["energy_ev_per_atom"].to_numpy(dtype=float) for t in tables]
    pure = [values[0][shares[0][:, k] == 1.0] for k in range(len(elements))]
    if len(elements) not in (2, 3):
        raise ValueError(f"a phase diagram has two or three elements, and this has {len(elements)}.")
    if missing := [e for e, energies in zip(elements, pure, strict=True) if not len(energies)]:
        raise ValueError(
            f"a phase diagram needs a phase of each element, and none is of {' or '.join(missing)} alone."
        )
    references = np.array([energies.min() for energies in pure])
    formed = [v - s @ references for v, s in zip(values, shares, strict=True)]
    return elements, (shares[0], shares[1]), (formed[0], formed[1])


def plot_binary_hull(
    share: ArrayLike,
    formation_ev_per_atom: ArrayLike,
    std_ev_per_atom: ArrayLike,
    p_stable: ArrayLike,
    elements: Sequence[str],
    phases: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot a phase diagram of two elements with an error bar for each phase; phases that are hardly stable are faded.

    Parameters
    ----------
    share : array_like, shape (n,)
        Atomic share of the second element.
    formation_ev_per_atom, std_ev_per_atom : array_like, shape (n,)
        Formation energy and its standard deviation; 0 for a fixed phase.
    p_stable : array_like, shape (n,)
        Probability that the phase is on the hull.
    elements : two str
    phases : (share, formation energy), optional
        What the hull goes through; the points themselves by default.
    ax : Axes, optional
        A new figure by default.
    """
    x, y, s, p = (
        np.asarray(v, dtype=float) for v in (share, formation_ev_per_atom, std_ev_per_atom, p_stable)
    )
    ax = new_axes(4.5, 3.5) if ax is None else ax
    at, energy = (x, y) if phases is None else (np.asarray(v, dtype=float) for v in phases)
    points, facets = _lower_hull(at[:, None], energy)
    corners = points[np.unique(facets)]
    corners = corners[np.argsort(corners[:, 0])]
    ax.plot(corners[:, 0], corners[:, 1], color=GREY, lw=1.2)
    for k in range(len(x)):
        alpha = FADED + (1 - FADED) * float(p[k])
        ax.errorbar(x[k], y[k], yerr=s[k] or None, fmt="o", ms=4, color=BLUE, alpha=alpha, lw=1, capsize=2)
    return finish(
        ax, "", f"Share of {elements[1]} in {elements[0]}–{elements[1]}", "Formation energy (eV/atom)"
    )


def plot_ternary_hull(
    shares: ArrayLike,
    formation_ev_per_atom: ArrayLike,
    p_stable: ArrayLike,
    elements: Sequence[str],
    phases: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot a phase diagram of three elements: tie lines, and points whose colour is the distance from the hull.

    Parameters
    ----------
    shares : array_like, shape (n, 3)
        Atomic shares of the elements.
    formation_ev_per_atom, p_stable : array_like, shape (n,)
        As of :func:`plot_binary_hull`. Phases that are hardly stable are faded.
    elements : three str
        At the left, right and upper corner.
    phases : (shares, formation energy), optional
        What the hull goes through; the points themselves by default.
    ax : Axes, optional
        A new figure by default.
    """
    f, y, p = (np.asarray(v, dtype=float) for v in (shares, formation_ev_per_atom, p_stable))
    ax = new_axes(5.6, 4.4) if ax is None else ax
    at, energy = (f, y) if phases is None else (np.asarray(v, dtype=float) for v in phases)
    points, facets = _lower_hull(_plane(at), energy)
    for edge in {tuple(sorted(side)) for a, b, c in facets.tolist() for side in ((a, b), (b, c), (a, c))}:
        ax.plot(*points[list(edge), :2].T, color=GREY, lw=0.8, zorder=1)
    place = _plane(f)
    above = 1000 * (y - _height(points, facets, place))
    order = np.argsort(-p, kind="stable")[::-1]
    opacity: Any = FADED + (1 - FADED) * p[order]  # of each point; the stubs know one for all
    drawn = ax.scatter(
        place[order, 0], place[order, 1], c=np.clip(above[order], 0, _FAR_MEV), cmap="viridis_r", vmin=0,
        vmax=_FAR_MEV, s=26, alpha=opacity, edgecolors=INK, linewidths=0.5, zorder=2,
    )  # fmt: skip
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.7, pad=0.02)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.set_label("above the hull (meV/atom)", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=7.5)
    for name, (x, height), gap in zip(elements, _plane(np.eye(3)), (-0.04, -0.04, 0.03), strict=True):
        ax.text(x, height + gap, name, ha="center", va="center", fontsize=10, color=INK)
    ax.set(aspect="equal", xlim=(-0.06, 1.12), ylim=(-0.08, 0.95))
    ax.axis("off")
    return ax


def _plane(shares: Array) -> Array:
    """Places in an equilateral triangle, shape (n, 2)."""
    return np.column_stack([shares[:, 1] + 0.5 * shares[:, 2], 0.5 * np.sqrt(3.0) * shares[:, 2]])


def _lower_hull(place: Array, formation: Array) -> tuple[Array, NDArray[np.int64]]:
    """Points (n, d + 1) with the elements in front, and the corners (k, d + 1) of the facets of their lower hull."""
    from scipy.spatial import ConvexHull

    d = place.shape[1]
    corners = np.array([[0.0], [1.0]]) if d == 1 else _plane(np.eye(3))
    below = formation < -1e-9
    points = np.concatenate(
        [
            np.column_stack([corners, np.zeros(d + 1)]),
            np.unique(np.column_stack([place[below], formation[below]]), axis=0),
        ]
    )
    if len(points) == d + 1:
        return points, np.arange(d + 1)[None]
    facets = ConvexHull(points)
    return points, facets.simplices[facets.equations[:, d] < -1e-9].astype(np.int64)


def _height(points: Array, facets: NDArray[np.int64], place: Array) -> Array:
    """Energy of the lower hull at places (n, 2): the highest of the planes through its facets."""
    corners = np.concatenate([points[facets][..., :2], np.ones((*facets.shape, 1))], axis=2)
    planes = np.linalg.solve(corners, points[facets][..., 2:])[..., 0]
    return np.asarray((np.column_stack([place, np.ones(len(place))]) @ planes.T).max(axis=1))
