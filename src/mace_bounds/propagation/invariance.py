"""What the symmetry of a cell saves: derivatives that follow from each other are computed once.

The energy does not change when a symmetry operation carries every displacement and strain along. So a Hessian is known
from the columns of a few atoms and directions, and a quadratic form in strains and displacements from a few directions.

Reference: M. Born and K. Huang, "Dynamical Theory of Crystal Lattices" (1954), section 23; for displaced atoms K.
Parlinski, Z. Q. Li and Y. Kawazoe, Phys. Rev. Lett. 78, 4063 (1997).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mace_bounds.propagation.cells import VOIGT, strain_tensor
from mace_bounds.structures import Crystal

SYMPREC_A = 1e-4
"""How far from symmetric positions may be, Å: derivatives of structures that are less so would be wrong by it."""


@dataclass(frozen=True, eq=False)
class Operations:
    """Symmetry operations of a cell: each carries atom i at r_i to the place R r_i + t of atom p(i).

    Attributes
    ----------
    rotations : ndarray, shape (g, 3, 3)
        R, orthogonal, in Cartesian axes.
    permutations : ndarray of int, shape (g, n_atoms)
        p.
    """

    rotations: NDArray[np.float64]
    permutations: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rotations)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Operations:
        return Operations(self.rotations[chosen], self.permutations[chosen])

    def moved(self, displacements: ArrayLike) -> NDArray[np.float64]:
        """Displacements (n_atoms, 3) as each operation carries them, shape (g, n_atoms, 3)."""
        u = np.asarray(displacements, dtype=np.float64)
        out = np.empty((len(self), *u.shape))
        out[np.arange(len(self))[:, None], self.permutations] = u @ self.rotations.transpose(0, 2, 1)
        return out

    def strained(self) -> NDArray[np.float64]:
        """How strains in Voigt's order, shears as 2ε, are carried, shape (g, 6, 6)."""
        basis = np.array([strain_tensor(unit) for unit in np.eye(6)])
        turned = np.einsum("gab,kbc,gdc->gkad", self.rotations, basis, self.rotations)
        rows = [turned[:, :, i, j] * (1.0 if i == j else 2.0) for i, j in VOIGT]
        return np.stack(rows, axis=1)

    def on_strains_and_moves(self) -> NDArray[np.float64]:
        """Matrices on six strains and the displacements of all atoms but the last, which is held, shape (g, d, d)."""
        g, n = self.permutations.shape
        d = 3 * (n - 1)
        out = np.zeros((g, 6 + d, 6 + d))
        out[:, :6, :6] = self.strained()
        for k, unit in enumerate(np.eye(d)):
            u = self.moved(np.append(unit, np.zeros(3)).reshape(n, 3))
            out[:, 6:, 6 + k] = (u[:, :-1] - u[:, -1:]).reshape(g, d)
        return out


def operations_of(crystal: Crystal, symprec_a: float = SYMPREC_A) -> Operations:
    """Operations by spglib, pure translations among them; the identity alone where it finds none."""
    import spglib

    n = len(crystal.numbers)
    identity = Operations(np.eye(3)[None], np.arange(n)[None])
    fractional = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = spglib.get_symmetry((crystal.cell, fractional, crystal.numbers), symprec=symprec_a)
        except Exception:  # spglib raises errors of its own, which differ between versions
            found = None
    if found is None:
        return identity
    columns, rotations, permutations = crystal.cell.T, [], []
    for w, t in zip(found["rotations"], found["translations"], strict=True):
        apart = (fractional @ w.T + t)[:, None] - fractional
        apart -= np.round(apart)
        distance = np.linalg.norm(apart @ crystal.cell, axis=2)
        target = distance.argmin(axis=1)
        left, _, right = np.linalg.svd(columns @ w @ np.linalg.inv(columns))
        if len(set(target.tolist())) == n and distance[np.arange(n), target].max() < 10 * symprec_a:
            rotations.append(left @ right)
            permutations.append(target)
    return Operations(np.array(rotations), np.array(permutations)) if rotations else identity


def columns_of(
    operations: Operations,
    product: Callable[[int, NDArray[np.float64]], NDArray[np.float64]],
    atoms: Sequence[int],
) -> NDArray[np.float64]:
    """Second derivatives by displacements of some atoms and of all, from as few directions as symmetry allows.

    Parameters
    ----------
    operations : Operations
    product : callable
        Of an atom and a direction (3,): change of all gradients per displacement, shape (n_atoms, 3, ...).
    atoms : sequence of int
        Whose columns are wanted.

    Returns
    -------
    ndarray, shape (len(atoms), 3, n_atoms, 3, ...)
    """
    done: dict[int, NDArray[np.float64]] = {}
    for atom in atoms:
        for known, block in done.items():
            if len(ways := np.flatnonzero(operations.permutations[:, known] == atom)):
                done[atom] = _carried(block, operations, int(ways[0]))
                break
        else:
            done[atom] = _columns_of_one(operations, product, atom)
    return np.array([done[atom] for atom in atoms])


def _carried(block: NDArray[np.float64], operations: Operations, k: int) -> NDArray[np.float64]:
    """Columns of an atom as operation k carries them to those of another."""
    r, p = operations.rotations[k], operations.permutations[k]
    out = np.empty_like(block)
    out[:, p] = np.einsum("ij,jn...->in...", r, np.einsum("ab,jnb...->jna...", r, block))
    return out


def _columns_of_one(
    operations: Operations, product: Callable[[int, NDArray[np.float64]], NDArray[np.float64]], atom: int
) -> NDArray[np.float64]:
    site = operations[operations.permutations[:, atom] == atom]
    total: NDArray[np.float64] | None = None
    metric = np.zeros((3, 3))
    for direction in np.eye(3):
        inside = metric @ np.linalg.pinv(metric) @ direction
        if np.linalg.norm(inside - direction) < 1e-6:
            continue  # a sum of directions that are known
        found = product(atom, direction)
        block = np.einsum("i,n...->in...", direction, found)
        carried = np.sum([_carried(block, site, k) for k in range(len(site))], axis=0)
        total = carried if total is None else total + carried
        along = site.rotations @ direction
        metric += along.T @ along
    return np.tensordot(np.linalg.inv(metric), np.asarray(total), axes=1)


def invariant_forms(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis of the symmetric A with Sᵀ A S = A for all S (g, d, d) of a group, shape (p, d, d)."""
    d = matrices.shape[1]
    count = count_of_forms(matrices)
    rng = np.random.default_rng(0)  # almost any forms will do: what is invariant in them is a basis
    forms = np.empty((count, d, d))
    for k in range(count):
        a = rng.standard_normal((d, d))
        forms[k] = np.mean(matrices.transpose(0, 2, 1) @ (a + a.T) @ matrices, axis=0)
    basis = np.linalg.qr(forms.reshape(count, -1).T)[0]
    return np.asarray(basis.T.reshape(count, d, d))


def count_of_forms(matrices: NDArray[np.float64]) -> int:
    """How many symmetric forms a group leaves as they are: the mean of its characters on them."""
    trace = np.trace(matrices, axis1=1, axis2=2)
    square = np.einsum("gij,gji->g", matrices, matrices)
    return round(float(np.mean(trace**2 + square)) / 2)


def invariant_vectors(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis of the v with Sᵀ v = v for all matrices S (g, d, d) of a group, shape (p, d)."""
    left, size, _ = np.linalg.svd(matrices.mean(axis=0).T)  # a projector: values of 1 and more, or 0
    return np.asarray(left[:, size > 0.5].T)
