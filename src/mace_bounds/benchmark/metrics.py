"""What is measured of a method on the test rows of one split: the same conformal layer, the same scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration import conformal_scores, mondrian_quantiles
from mace_bounds.metrics import crps_from_quantiles, interval_score, width_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mace_bounds.benchmark.baselines import Widths
    from mace_bounds.benchmark.methods import Bounds, Outcome, SplitData
    from mace_bounds.metrics import Membership

MEV_PER_EV = 1000.0
ONE_SIGMA = 0.6826894921370859
SCORE_LEVEL = 0.95
_QUANTILES = (np.arange(100) + 0.5) / 100  # of the forecast whose CRPS is taken
_SPREADS = np.round(np.abs(2.0 * _QUANTILES - 1.0), 2)
FROM_WIDTHS = ("nll", "miscalibration_area", "ence", "ause", "spearman")


def calibrated(outcome: Outcome, data: SplitData, levels: Sequence[float]) -> Callable[[float], Bounds]:
    """Bounds of the test rows at the levels and at those that the metrics ask for.

    Where the method has no conformal layer of its own: split conformal, symmetric and weighted, and the
    finite-sample correction counts the groups that new rows do not share.
    """
    if outcome.bounds is not None:
        return outcome.bounds
    rows = data.calibration.plain
    said = outcome.calibration
    wanted = sorted({*levels, SCORE_LEVEL, ONE_SIGMA, *(float(x) for x in _SPREADS)})
    scores = conformal_scores(rows.y - said.centre, said.sigma)
    table = mondrian_quantiles(scores, None, wanted, weights=rows.weights, clusters=rows.groups)
    centre, sigma = outcome.test.centre, outcome.test.sigma

    def bounds(level: float) -> Bounds:
        half = table.quantile(level) * sigma
        return centre - half, centre + half

    return bounds


def measure(
    y: NDArray[np.float64], said: Widths, bounds: Callable[[float], Bounds], levels: Sequence[float]
) -> tuple[dict[str, float | None], NDArray[np.float64]]:
    """Measure one method on the test rows.

    Parameters
    ----------
    y : ndarray, shape (n,)
        E_DFT - E_MACE, eV/atom.
    said : Widths
        Centres and σ of the rows, eV/atom.
    bounds : callable
        From :func:`calibrated`.
    levels : sequence of float
        Nominal coverages.

    Returns
    -------
    metrics : dict
        One number each; None where a level asks for more calibration groups than there are. NLL,
        miscalibration area and ENCE take the half-width of the 68.3 % interval for a standard deviation;
        CRPS is that of the conformal quantiles.
    per_row : ndarray, shape (n, n_levels + 2)
        Whether each level's interval holds y, then width and interval score at 95 %, meV/atom; NaN where
        there is no interval.
    """
    deviation = y - said.centre
    inside = [_inside(y, *bounds(level)) for level in levels]
    lower, upper = bounds(SCORE_LEVEL)
    finite = _finite(lower, upper)
    nothing = np.full(len(y), np.nan)
    width = (upper - lower) * MEV_PER_EV if finite else nothing
    score = interval_score(y, lower, upper, SCORE_LEVEL) * MEV_PER_EV if finite else nothing
    metrics = {f"coverage_{100 * x:g}": _mean(hit) for x, hit in zip(levels, inside, strict=True)}
    metrics |= {
        "mean_width_95_mev_per_atom": _mean(width),
        "median_width_95_mev_per_atom": float(np.median(width)) if finite else None,
        "interval_score_95_mev_per_atom": _mean(score),
        "crps_mev_per_atom": _crps(y, bounds) * MEV_PER_EV,
        "centre_mae_mev_per_atom": float(np.mean(np.abs(deviation))) * MEV_PER_EV,
    }
    lower, upper = bounds(ONE_SIGMA)
    widths = width_metrics(deviation, 0.5 * (upper - lower)).as_dict() if _finite(lower, upper) else {}
    metrics |= {name: widths.get(name) for name in FROM_WIDTHS}
    return metrics, np.column_stack([*inside, width, score])


def tally(per_row: NDArray[np.float64], groups: Mapping[str, Membership]) -> dict[str, dict[str, list[Any]]]:
    """Sums over the rows of each group: ``{by: {group: [n, *sums of the columns]}}``; None for NaN."""
    columns = np.column_stack([np.ones(len(per_row)), per_row])
    out: dict[str, dict[str, list[Any]]] = {}
    for by, members in groups.items():
        sums = [columns[members.matrix[:, j]].sum(axis=0) for j in range(len(members.names))]
        out[by] = {
            name: [int(row[0]), *(_plain(value) for value in row[1:])]
            for name, row in zip(members.names, sums, strict=True)
            if row[0] > 0
        }
    return out


def _inside(
    y: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not _finite(lower, upper):
        return np.full(len(y), np.nan)
    return ((lower <= y) & (y <= upper)).astype(np.float64)


def _finite(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(lower).all() and np.isfinite(upper).all())


def _crps(y: NDArray[np.float64], bounds: Callable[[float], Bounds]) -> float:
    """CRPS of the ends of central intervals; where a level has none, the widest there is."""
    ends = {level: bounds(float(level)) for level in np.unique(_SPREADS)}
    known = [level for level, pair in ends.items() if _finite(*pair)]
    quantiles = [
        ends[min(level, known[-1])][int(p > 0.5)] for p, level in zip(_QUANTILES, _SPREADS, strict=True)
    ]
    return crps_from_quantiles(y, np.column_stack(quantiles), _QUANTILES)


def _mean(values: NDArray[np.float64]) -> float | None:
    return _plain(float(np.mean(values)))


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
