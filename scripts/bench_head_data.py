"""Made-up rows for the head's benchmark, on disk as plain binary numbers; read back without mapping files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLOCK_ROWS = 2048
CONDITION = 1e4


def make_blocks(columns: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of features (n, P) and residuals (n,) in eV/atom without end; the same for the same seed.

    The features are Gaussian with standard deviations that fall geometrically from 1 to 1e-4, in a random basis. The
    residuals are linear in them but for a smooth term that no linear model reproduces (misspecification) and Student-t
    noise with three degrees of freedom, whose size changes from row to row.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((columns, columns)))
    spectrum = np.geomspace(1.0, 1.0 / CONDITION, columns)
    slope = 0.05 * rng.standard_normal(columns)
    while True:
        latent = rng.standard_normal((BLOCK_ROWS, columns))
        bent = 0.05 * np.tanh(2.0 * latent[:, 0]) * latent[:, 1] + 0.03 * np.cos(3.0 * latent[:, 2])
        noise = 0.02 * (1.0 + np.abs(latent[:, 3])) * rng.standard_t(3.0, BLOCK_ROWS)
        x = latent * spectrum
        yield x @ basis.T, x @ slope + bent + noise


@dataclass(frozen=True)
class RowFile:
    """Rows on disk: ``x.bin`` of ``dtype`` and ``y.bin`` of float64 in a folder."""

    folder: Path
    columns: int
    dtype: str = "float64"

    def write(self, n: int, seed: int) -> None:
        """Make ``n`` rows, block by block."""
        self.folder.mkdir(parents=True)
        sizes = [min(BLOCK_ROWS, n - start) for start in range(0, n, BLOCK_ROWS)]
        with (self.folder / "x.bin").open("wb") as xs, (self.folder / "y.bin").open("wb") as ys:
            for size, (x, y) in zip(sizes, islice(make_blocks(self.columns, seed), len(sizes)), strict=True):
                x[:size].astype(self.dtype).tofile(xs)
                y[:size].tofile(ys)

    def read(self, n: int) -> tuple[Array, Array]:
        """Return the first ``n`` rows as float64 arrays."""
        x = np.fromfile(self.folder / "x.bin", self.dtype, n * self.columns).reshape(n, self.columns)
        return np.asarray(x, dtype=np.float64), np.fromfile(self.folder / "y.bin", np.float64, n)

    def chunks(self, n: int) -> Iterator[tuple[NDArray, Array, None]]:
        """Yield the first ``n`` rows in pieces by plain reads: pages of a mapped file would count as memory."""
        with (self.folder / "x.bin").open("rb") as xs, (self.folder / "y.bin").open("rb") as ys:
            for start in range(0, n, BLOCK_ROWS):
                size = min(BLOCK_ROWS, n - start)
                x = np.fromfile(xs, self.dtype, size * self.columns)
                yield x.reshape(size, self.columns), np.fromfile(ys, np.float64, size), None
