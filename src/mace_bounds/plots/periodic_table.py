"""A periodic table coloured by a number for each element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_bounds.plots import style as plot_style

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from matplotlib.axes import Axes

_ROWS = (
    "H . . . . . . . . . . . . . . . . He",
    "Li Be . . . . . . . . . . B C N O F Ne",
    "Na Mg . . . . . . . . . . Al Si P S Cl Ar",
    "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr",
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe",
    "Cs Ba * Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn",
    "Fr Ra * . . . . . . . . . . . . . . .",
    "",
    ". . La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu .",
    ". . Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr .",
)


def plot_periodic_map(
    values: Mapping[str, float],
    *,
    label: str,
    limits: tuple[float, float, float],
    bold: Collection[str] = (),
    colours: str = "RdBu",
    text: str = "{:.0f}",
    ax: Axes | None = None,
) -> Axes:
    """Colour elements by a number.

    Parameters
    ----------
    values : mapping of str to float
        By element symbol; others stay empty.
    label : str
        What the colour is, with its unit.
    limits : (float, float, float)
        Values at the low end, the middle and the high end of the colour scale.
    bold : collection of str
        Elements with a frame.
    colours : str
        A colour map of matplotlib.
    text : str
        Format of the numbers.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    ax = plot_style.new_axes(9.6, 5.4) if ax is None else ax
    low, middle, high = limits
    norm = TwoSlopeNorm(middle, low, high)
    scale = ScalarMappable(norm, colours)
    for y, row in enumerate(_ROWS):
        for x, symbol in enumerate(row.split()):
            if symbol in ".*":
                continue
            known = symbol in values
            face = (
                scale.cmap(float(norm(min(max(values[symbol], low), high))))
                if known
                else (0.95, 0.95, 0.95, 1.0)
            )
            dark = 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2] < 0.5
            ink = "white" if dark else "#1b2430" if known else "#8a929b"
            edge, width = ("#1b2430", 2.0) if symbol in bold else ("white", 1.0)
            ax.add_patch(
                Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, facecolor=face, edgecolor=edge, linewidth=width)
            )
            place = y + (0.36 if known else 0.5)
            ax.text(
                x + 0.5, place, symbol, ha="center", va="center", color=ink, fontsize=9, fontweight="bold"
            )
            if known:
                number = text.format(values[symbol])
                ax.text(x + 0.5, y + 0.72, number, ha="center", va="center", color=ink, fontsize=7)
    ax.set(xlim=(0, 18), ylim=(len(_ROWS), 0), aspect="equal")
    ax.set_axis_off()
    figure = ax.get_figure(root=True)
    if figure is not None:
        figure.colorbar(scale, ax=ax, label=label, orientation="horizontal", shrink=0.5, pad=0.01, aspect=40)
    return ax
