"""Made-up structures for the baselines."""

import numpy as np

from mace_bounds.benchmark.baselines import BaselineRows


def rows_of(x, y, *, groups=None, weights=None, centre=None):
    """Rows with the fields that baselines do not look at filled in."""
    n = len(y)
    return BaselineRows(
        x=np.asarray(x, dtype=np.float64),
        y=np.asarray(y, dtype=np.float64),
        centre=np.zeros(n) if centre is None else centre,
        groups=np.array([f"A{i // 2}B" for i in range(n)]) if groups is None else groups,
        weights=np.ones(n) if weights is None else weights,
        fractions=np.zeros((n, 118)),
    )


def planted(n, seed, *, columns=6, spread=1.0, bias=0.0):
    """Centred errors of 50 meV/atom whose size grows as exp(spread·x₀); y = bias·x₁ + error."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, columns))
    size = np.exp(spread * x[:, 0])
    y = bias * x[:, 1] + 0.05 * size / np.sqrt(np.mean(size**2)) * rng.standard_normal(n)
    return rows_of(x, y)


def novel(n, seed, columns=5):
    """Rows of two sizes: errors of the long ones (7 %) are larger, as far-from-data structures have them."""
    rng = np.random.default_rng(seed)
    length = np.where(rng.random(n) < 0.07, 6.0, 1.0)
    x = rng.standard_normal((n, columns)) * length[:, None]
    return rows_of(x, 0.05 * length * rng.standard_normal(n))
