"""A backbone whose properties have closed forms: energies linear in Σ (s/r)^12 and Σ (s/r)^6, cut off far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mace_bounds.backbones import FeatureBlock, FeatureKind
from mace_bounds.structures import Crystal

SIGMA_A, EPSILON_EV = 2.5, 0.2


@dataclass(frozen=True, eq=False)
class LennardJones:
    """Lennard-Jones with its two powers as features, smoothly cut off (x² (3 - 2x) between the radii)."""

    weights_ev: np.ndarray = field(default_factory=lambda: 2 * EPSILON_EV * np.array([1.0, -1.0]))
    name, head, dtype, device = "lennard-jones", "default", "float64", "cpu"
    inner_a: float = 7.0
    cutoff_a: float = 9.0
    atomic_numbers: tuple[int, ...] = tuple(range(1, 95))
    digest: str = "0" * 64
    training_compositions: None = None
    warnings: tuple[str, ...] = ()

    @property
    def theta0_ev(self):
        return np.append(self.weights_ev, 0.0)

    def columns(self, kind: FeatureKind = "readout"):  # noqa: ARG002
        return ["r12", "r6"]

    def extract(self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False):  # noqa: ARG002
        sums = np.array([self.radial(self.distances(c)).sum(axis=0) for c in crystals]).reshape(-1, 2)
        return FeatureBlock(sums, np.zeros(len(sums)), sums @ self.weights_ev)

    def distances(self, crystal: Crystal):
        heights = 1 / np.linalg.norm(np.linalg.inv(crystal.cell), axis=0)
        most = np.ceil(self.cutoff_a / heights).astype(int) + 1
        shifts = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most]), axis=-1).reshape(-1, 3)
        between = crystal.positions[:, None] - crystal.positions
        r = np.linalg.norm(between[:, :, None] + shifts @ crystal.cell, axis=-1).ravel()
        return r[(r > 1e-6) & (r < self.cutoff_a)]

    def radial(self, r):
        x = np.clip((self.cutoff_a - r) / (self.cutoff_a - self.inner_a), 0, 1)
        smooth = x * x * (3 - 2 * x)
        return np.stack([(SIGMA_A / r) ** 12 * smooth, (SIGMA_A / r) ** 6 * smooth], axis=-1)

    def pair_ev(self, r):
        """Energy of one pair as the sums count it: each pair twice, so 2 E."""
        return 2 * self.radial(np.asarray(r, dtype=float)) @ self.weights_ev
