"""The look that all plots share; matplotlib's object interface only, so plots are safe in servers."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mace_bounds._io import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colour-blind safe palette
BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
INK, GREY, PALE = "#333333", "#8A8A8A", "#D9D9D9"
OVERLAY_COLOURS = (BLUE, ORANGE, GREEN, RED)
LEVEL_COLOURS = (SKY, BLUE, GREEN, ORANGE, RED)


def new_axes(width: float = 4.6, height: float = 4.0) -> Axes:
    """Return the axes of a new figure that belongs to nobody (no pyplot state); size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def finish(ax: Axes, title: str, xlabel: str, ylabel: str, *, most: int = 52) -> Axes:
    """Set texts, thin the frame, and return the axes; a title of more than ``most`` characters takes more lines."""
    lines = "\n".join(fill(line, most) for line in title.split("\n"))
    ax.set_title(lines, fontsize=10, loc="left", color=INK, wrap=True)
    ax.set_xlabel(xlabel, fontsize=9.5, color=INK)
    ax.set_ylabel(ylabel, fontsize=9.5, color=INK)
    ax.tick_params(labelsize=8.5, colors=INK, which="both", width=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
        ax.spines[side].set_linewidth(0.8)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, **options: Any) -> None:
    """Draw the legend without a frame's weight."""
    fixed = {"framealpha": 0.85, "alignment": "left", "title_fontsize": 8}
    drawn = ax.legend(fontsize=8, labelcolor=INK, **{**fixed, **options})
    drawn.get_frame().set_linewidth(0.0)


def plain_log(ax: Axes, axis: str = "both") -> None:
    """Label logarithmic axes with plain numbers (20, 100, 1000 meV) instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name, scale in (("x", ax.xaxis), ("y", ax.yaxis)):
        if axis in (name, "both"):
            low, high = sorted(scale.get_view_interval())
            narrow = low > 0 and high / low < 100
            scale.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
            scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            scale.set_minor_formatter(NullFormatter())


def save_plot(ax: Axes, *paths: Path, dpi: int = 300) -> None:
    """Write the figure of ``ax`` to every path; the suffix (.png, .svg, .pdf) chooses the format.

    It is laid out once, for all formats alike. Equal plots, equal bytes.
    """
    from matplotlib import rc_context

    figure: Any = ax.get_figure(root=True)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    for path in paths:
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
        with rc_context({"svg.hashsalt": "mace-bounds"}), atomic(path) as temporary:
            figure.savefig(temporary, dpi=dpi, facecolor="white", metadata=undated)
    figure.set_layout_engine(engine)
