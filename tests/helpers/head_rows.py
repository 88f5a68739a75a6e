"""Made-up rows with the traits of real ones: ill-conditioned columns, heavy tails, sparse compositions."""

import numpy as np


def correlated(n, p, condition, seed, *, tails=2.5, noise=0.1):
    """Columns of the given condition number in a random basis; residuals with Student-t noise (None: Gaussian)."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((p, p)))
    x = (rng.standard_normal((n, p)) * np.geomspace(1.0, 1.0 / condition, p)) @ basis
    error = rng.standard_normal(n) if tails is None else rng.standard_t(tails, n)
    return x, x @ rng.standard_normal(p) + noise * error


def mace_like(n, seed, *, scalars=48, hidden=12, elements=30):
    """Per-atom features as MACE's: correlated scalars, positive hidden values, element fractions (some never met)."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n, elements))
    for row in counts:
        kinds = rng.choice(elements - 2, size=rng.integers(1, 5), replace=False)
        row[kinds] = rng.integers(1, 9, size=len(kinds))
    fractions = counts / counts.sum(axis=1, keepdims=True)
    latent = fractions @ rng.standard_normal((elements, 10)) + 0.3 * rng.standard_normal((n, 10))
    smooth = np.tanh(latent @ rng.standard_normal((10, scalars)) / 3.0) @ np.diag(
        np.geomspace(2.0, 1e-2, scalars)
    )
    gate = latent @ rng.standard_normal((10, hidden))
    x = np.hstack([smooth, gate / (1.0 + np.exp(-gate)), fractions])
    y = 0.03 * latent[:, 0] * latent[:, 1] + 0.05 * rng.standard_t(2.2, n) * (0.2 + np.abs(latent[:, 2]))
    return x, y
