"""Rows for the head."""

import numpy as np

from mace_bounds.features import atomic_fractions, design_matrix


def test_atomic_fractions_by_hand():
    fractions = atomic_fractions([[8, 26], [11, 17]], [[6, 4], [1, 1]])
    assert fractions.shape == (2, 118)
    assert fractions[0, 7] == 0.6
    assert fractions[0, 25] == 0.4
    assert fractions[1, [10, 16]].tolist() == [0.5, 0.5]
    assert np.allclose(fractions.sum(axis=1), 1)


def test_design_matrix_is_per_atom():
    features, n_atoms = np.array([[2.0, 4.0], [9.0, 3.0]]), np.array([2.0, 3.0])
    fractions = np.eye(118)[:2]
    assert design_matrix(features, n_atoms, fractions, composition=False).tolist() == [[1, 2], [3, 1]]
    joined = design_matrix(features, n_atoms, fractions, composition=True)
    assert joined.shape == (2, 120)
    assert joined[1, [0, 1, 2, 3]].tolist() == [3, 1, 0, 1]
