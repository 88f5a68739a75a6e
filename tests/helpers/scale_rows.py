"""Synthetic rows whose true width is known, shared by the tests of scale and centre."""

import numpy as np

from mace_bounds.calibration import ScaleInputs

N_ELEMENTS = 20


def make(
    n, seed=0, element_spread=0.6, support_slope=1.0, noise="normal", n_compositions=None, feature_slope=0.0
):
    """Rows whose true σ depends on support, composition and the first feature; returns inputs, residuals, groups, σ."""
    rng = np.random.default_rng(seed)
    n_compositions = n_compositions or n // 3
    table = np.zeros((n_compositions, N_ELEMENTS))
    for row in table:
        elements = rng.choice(N_ELEMENTS - 1, 2, replace=False)  # the last element is never seen
        row[elements] = rng.dirichlet([2.0, 2.0])
    composition = rng.integers(0, n_compositions, n)
    leverage = np.exp(rng.normal(-3, 0.8, n))
    support = 0.05 * np.sqrt(leverage) * np.exp(rng.normal(0, 0.4, n))
    rng.integers(1, 60, n)  # keeps the draws below where they were
    log_elements = element_spread * rng.standard_normal(N_ELEMENTS)
    draw = rng.standard_normal(n) if noise == "normal" else rng.standard_t(3, n)
    features = rng.standard_normal((n, 5)) * [1.0, 10.0, 0.1, 1.0, 0.0]  # the last is constant
    inputs = ScaleInputs(
        support_width=support,
        box_std=0.5 * support,
        leverage=leverage,
        epistemic_std=0.01 * np.sqrt(leverage),
        fractions=table[composition],
        features=features,
    )
    log_sigma = support_slope * np.log(support / np.median(support)) + inputs.fractions @ log_elements
    sigma = 0.02 * np.exp(log_sigma + feature_slope * features[:, 0])
    return inputs, sigma * draw, np.array([f"c{i}" for i in composition]), sigma
