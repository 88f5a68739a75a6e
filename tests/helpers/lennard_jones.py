"""A backbone whose properties have closed forms: energies linear in Σ (s/r)^12 and Σ (s/r)^6, cut off far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matscipy.neighbours import neighbour_list

from mace_bounds.backbones import FeatureBlock, FeatureGradients, FeatureKind
from mace_bounds.structures import Crystal

SIGMA_A, EPSILON_EV = 2.5, 0.2


@dataclass(frozen=True, eq=False)
class LennardJones:
    """Lennard-Jones with its two powers as features, cut off between two radii with three continuous derivatives."""

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

    def vectors(self, crystal: Crystal):
        """Vectors from j to i within the cutoff, and i, of all pairs."""
        owner, vectors = neighbour_list(
            "iD", cutoff=self.cutoff_a, positions=crystal.positions, cell=crystal.cell, pbc=[True] * 3
        )
        return -vectors, owner

    def distances(self, crystal: Crystal):
        return np.linalg.norm(self.vectors(crystal)[0], axis=-1)

    def radial(self, r):
        x = np.clip((self.cutoff_a - r) / (self.cutoff_a - self.inner_a), 0, 1)
        smooth = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
        return np.stack([(SIGMA_A / r) ** 12 * smooth, (SIGMA_A / r) ** 6 * smooth], axis=-1)

    def pair_ev(self, r):
        """Energy of one pair as the sums count it: each pair twice, so 2 E."""
        return 2 * self.radial(np.asarray(r, dtype=float)) @ self.weights_ev

    def slopes(self, r):
        """Derivatives of :meth:`radial`."""
        x = np.clip((self.cutoff_a - r) / (self.cutoff_a - self.inner_a), 0, 1)
        smooth = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
        steep = -140 * (x * (1 - x)) ** 3 / (self.cutoff_a - self.inner_a)
        powers = [(SIGMA_A / r) ** p * (smooth * -p / r + steep) for p in (12, 6)]
        return np.stack(powers, axis=-1)

    def feature_gradients(self, crystals, kind: FeatureKind = "readout"):  # noqa: ARG002
        for crystal in crystals:
            vectors, owner = self.vectors(crystal)
            r = np.linalg.norm(vectors, axis=-1)
            along = vectors[:, :, None] * (self.slopes(r) / r[:, None])[:, None]  # (pairs, 3, 2)
            d_positions = np.zeros((len(crystal.numbers), 3, 2))
            np.add.at(d_positions, owner, 2 * along)
            d_strain = np.einsum("pa,pbc->abc", vectors, along)
            features, n = self.radial(r).sum(axis=0), len(crystal.numbers)
            yield FeatureGradients(
                features, d_positions, d_strain, crystal.volume, float(features @ self.weights_ev),
                -d_positions @ self.weights_ev, d_strain @ self.weights_ev / crystal.volume,
                0.0, np.zeros((n, 3)), np.zeros((3, 3)),
            )  # fmt: skip

    def evaluate(self, crystal: Crystal, kind: FeatureKind = "readout"):
        return next(self.feature_gradients([crystal], kind))
