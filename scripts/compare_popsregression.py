"""Compare the head's compatibility mode with the authors' popsregression on real rows.

    python scripts/compare_popsregression.py ROWS.npz

ROWS.npz holds ``x`` (n, P), ``y`` (n,) and optionally ``weight`` (n,). Prints a Markdown table: largest differences in
coefficients, covariance (relative to the largest entry) and support width (relative to each width), rows selected
differently, selected rows outside the unclipped support; and for the default mode what order and chunk size change.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from popsregression import POPSRegression

from mace_bounds.head import PopsConfig, PopsFit, PopsPrediction, array_chunks, fit_pops, predict

Array = NDArray[np.float64]


def exact_support(reference: POPSRegression, x: Array) -> tuple[Array, Array]:
    """Middle and width of the reference's box in closed form (its own bounds come from samples)."""
    low, high = reference._hypercube_bounds
    along = x @ reference._hypercube_support
    return along @ (0.5 * (low + high)), np.abs(along) @ (high - low)


def compare(x: Array, y: Array, weight: Array | None, clip: float) -> list[str]:
    """One row of the table."""
    start = time.perf_counter()
    theirs = POPSRegression(percentile_clipping=clip).fit(x, y, sample_weight=weight)
    middle = time.perf_counter()
    config = PopsConfig(compatible=True, clip_percent=clip, fit_intercept=False)
    ours = fit_pops(array_chunks(x, y, weight), config)
    end = time.perf_counter()
    shift, width = exact_support(theirs, x)
    p = predict(ours.head, x)
    coefficients = np.abs(ours.head.coefficients - theirs.coef_).max() / np.abs(theirs.coef_).max()
    covariance = np.abs(ours.head.covariance - theirs.sigma_).max() / np.abs(theirs.sigma_).max()
    widths = np.abs((p.support_upper - p.support_lower) / width - 1.0).max()
    middles = (np.abs(0.5 * (p.support_upper + p.support_lower) - p.mean - shift) / width).max()
    return [
        f"{clip:g} %",
        f"{coefficients:.1e}",
        f"{covariance:.1e}",
        f"{widths:.1e}",
        f"{middles:.1e}",
        str(int(np.sum(ours.selected != theirs._leverage_mask))),
        str(outside(ours, y, p)),
        f"{np.count_nonzero(ours.head.upper != ours.head.lower)}/{len(ours.head.upper)}",
        f"{end - middle:.2f} / {middle - start:.2f}",
    ]


def outside(fit: PopsFit, y: Array, p: PopsPrediction) -> int:
    """Selected rows outside the unclipped support (of the reference's axes where nothing is clipped)."""
    slack = 1e-9 * np.abs(y) + 1e-12
    whole = fit.head.config.clip_percent == 0.0
    lower = p.support_lower if whole else p.envelope_lower
    upper = p.support_upper if whole else p.envelope_upper
    wrong = (y < lower - slack) | (y > upper + slack)
    return int(np.sum(wrong & fit.selected))


def reorder(x: Array, y: Array, weight: Array | None) -> tuple[float, float, bool]:
    """Change of coefficients and widths with order and chunk size, and whether two runs give the same bytes."""
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = array_chunks(x[order], y[order], None if weight is None else weight[order], 777)
    fits = [fit_pops(array_chunks(x, y, weight)).head for _ in range(2)]
    other = fit_pops(shuffled).head
    a, b = predict(fits[0], x), predict(other, x)
    one, two = a.support_upper - a.support_lower, b.support_upper - b.support_lower
    change = np.abs(fits[0].coefficients - other.coefficients).max() / np.abs(other.coefficients).max()
    first, second = (head.to_tensors() for head in fits)
    same = all(first[name].tobytes() == second[name].tobytes() for name in first)
    return float(change), float(np.abs(one / two - 1.0).max()), same


def main() -> None:
    """Read the rows and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    with np.load(parser.parse_args().rows, allow_pickle=False) as data:
        x, y = data["x"].astype(np.float64), data["y"].astype(np.float64)
        weight = data["weight"].astype(np.float64) if "weight" in data else None
    singular = np.linalg.svd(x, compute_uv=False)
    rank = int(np.sum(singular > len(y) * np.finfo(float).eps * singular[0]))
    condition = singular[0] / singular[rank - 1]
    print(f"{len(y)} rows, {x.shape[1]} columns, rank {rank}, condition within the rank {condition:.1e}\n")
    titles = ["clip", "coefficients", "sigma", "support width", "support middle", "rows selected differently"]
    titles += ["selected rows outside", "axes with width", "time ours / theirs, s"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for clip in (0.0, 0.5):
        print("| " + " | ".join(compare(x, y, weight, clip)) + " |")
    coefficients, widths, same = reorder(x, y, weight)
    print(
        f"\nDefault mode, another order and chunk size: coefficients {coefficients:.1e}, support width {widths:.1e}; "
        f"two runs {'the same bytes' if same else 'DIFFERENT BYTES'}."
    )


if __name__ == "__main__":
    main()
