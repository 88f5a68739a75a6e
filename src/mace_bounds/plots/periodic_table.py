"""A periodic table coloured by a number for each element."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mace_bounds.plots import style as plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 10
"""Seven periods, a gap, and a row each for lanthanides and actinides."""


def _places() -> Iterator[tuple[str, int, int]]:
    """Symbol, column and row of every element up to lawrencium, both counted from 0."""
    from pymatgen.core import Element

    for number in range(1, 104):
        symbol = Element.from_Z(number).symbol
        if 57 <= number <= 71 or number >= 89:
            yield symbol, number - (55 if number <= 71 else 87), 8 if number <= 71 else 9
        else:
            element = Element(symbol)
            yield symbol, element.group - 1, element.row - 1


def plot_periodic_map(
    values: Mapping[str, float],
    *,
    label: str,
    limits: tuple[float, float, float],
    beyond_chance: Collection[str] | None = None,
    colours: str = "RdBu",
    text: str = "{:.0f}",
    ax: Axes | None = None,
) -> Axes:
    """Colour elements by a number.

    ``values``: by element symbol; others stay empty; ``label``: what the colour is, with its unit;
    ``limits``: values at the low end, the middle and the high end of the colour scale; ``beyond_chance``:
    only these elements are coloured, others show their number on white (all are coloured by default);
    ``colours``: a colour map of matplotlib; ``text``: format of the numbers.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    ax = plot_style.new_axes(9.6, 5.4) if ax is None else ax
    low, middle, high = limits
    norm = TwoSlopeNorm(middle, low, high)
    scale = ScalarMappable(norm, colours)
    for symbol, x, y in _places():
        known = symbol in values
        coloured = known and (beyond_chance is None or symbol in beyond_chance)
        face = (1.0, 1.0, 1.0, 1.0) if known else (0.95, 0.95, 0.95, 1.0)
        if coloured:
            face = scale.cmap(float(norm(min(max(values[symbol], low), high))))
        dark = 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2] < 0.5  # luma of ITU-R BT.601
        ink = "white" if dark else "#1b2430" if coloured else "#6b747e" if known else "#a3abb3"
        edge, width = ("#1b2430", 2.0) if coloured and beyond_chance is not None else ("#d5dadf", 0.8)
        ax.add_patch(
            Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, facecolor=face, edgecolor=edge, linewidth=width)
        )
        middle_of: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
        ax.text(x + 0.5, y + (0.36 if known else 0.5), symbol, fontsize=9, fontweight="bold", **middle_of)
        if known:
            shown = text.format(values[symbol])
            shown = shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")
            ax.text(x + 0.5, y + 0.72, shown, fontsize=7, **middle_of)
    ax.set(xlim=(0, 18), ylim=(_HEIGHT, 0), aspect="equal")
    ax.set_axis_off()
    figure = ax.get_figure(root=True)
    if beyond_chance is not None and not set(beyond_chance) & set(values):
        ax.text(
            9,
            _HEIGHT,
            f"{label}\nnothing is beyond chance",
            ha="center",
            va="top",
            fontsize=9,
            color="#1b2430",
        )
    elif figure is not None:
        figure.colorbar(scale, ax=ax, label=label, orientation="horizontal", shrink=0.5, pad=0.01, aspect=40)
    return ax
