"""Draws from posteriors, by their definitions: another way to their widths than the closed forms."""

from dataclasses import replace

import numpy as np

from mace_bounds.head.posteriors import Ellipsoid, Ensemble, Hypercube


def draw(posterior, n, seed):
    """Deviations b in principal coordinates, shape (n, m)."""
    rng = np.random.default_rng(seed)
    if isinstance(posterior, Hypercube):
        return rng.uniform(posterior.lower, posterior.upper, (n, len(posterior.lower)))
    if isinstance(posterior, Ensemble):
        return posterior.members[rng.integers(len(posterior.members), size=n)]
    assert isinstance(posterior, Ellipsoid)
    rank = posterior.axes.shape[1]
    ball = rng.standard_normal((n, rank))  # a random direction and a radius U^(1/q)
    ball *= rng.random((n, 1)) ** (1.0 / rank) / np.linalg.norm(ball, axis=1, keepdims=True)
    return ball @ posterior.axes.T


def whitened(head, x):
    """Whitened rows u = Fᵀz, shape (n, m)."""
    return head.design.transform(x) @ head.ridge.whitening


def with_posterior(head, name):
    """The same head with another of its posteriors as the one that counts."""
    others = tuple(other for other in head.posteriors if other != name)
    return replace(head, config=replace(head.config, posterior=name, also=others))
