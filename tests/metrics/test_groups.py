import numpy as np
import pytest

from mace_bounds.errors import HeadError
from mace_bounds.metrics import (
    Membership,
    codes_of,
    element_membership,
    fraction_membership,
    groups_of,
    membership,
    size_bins,
)


def test_elements_from_systems_and_from_fractions_agree():
    systems = element_membership(["Cl-Na", "Na", "Fe-O"])
    assert systems.names == ("Cl", "Fe", "Na", "O")
    assert systems.matrix.sum(axis=0).tolist() == [1, 1, 2, 1]
    fractions = np.array([[0.5, 0.0, 0.5, 0.0, 0.0], [0, 0, 1, 0, 0], [0, 0.4, 0, 0.6, 0]])
    other = fraction_membership(fractions, ["Cl", "Fe", "Na", "O", "Xe"])
    assert other.names == systems.names
    np.testing.assert_array_equal(other.matrix, systems.matrix)


def test_size_bins_sort_by_size():
    labels = size_bins([1, 4, 5, 10, 11, 100, 101, 500])
    assert labels.tolist() == [
        "001-004 atoms",
        "001-004 atoms",
        "005-010 atoms",
        "005-010 atoms",
        "011-020 atoms",
        "051-100 atoms",
        "101+ atoms",
        "101+ atoms",
    ]
    assert labels.tolist() == sorted(labels)


def test_a_membership_must_fit_its_names():
    with pytest.raises(HeadError, match="does not fit"):
        Membership(("a",), np.ones((2, 2), dtype=bool))
    assert membership([]).matrix.shape == (0, 0)


def test_groups_as_lists_of_rows_are_those_of_the_matrix():
    rng = np.random.default_rng(3)
    systems = [
        "-".join(rng.choice(["Li", "O", "Fe", "P"], rng.integers(1, 4), replace=False)) for _ in range(50)
    ]
    systems[7] = systems[8] = "Yb"
    for labels in (systems, [tuple(system.split("-")) for system in systems], [None, "b", float("nan"), "a"]):
        listed, matrix = groups_of(labels), membership(labels)
        assert listed.names == matrix.names
        assert listed.n_rows == len(labels)
        for rows, column in zip(listed.rows, matrix.matrix.T, strict=True):
            np.testing.assert_array_equal(rows, np.flatnonzero(column))
        same = groups_of(matrix)
        assert [rows.tolist() for rows in same.rows] == [rows.tolist() for rows in listed.rows]
    assert (groups_of([]).names, groups_of([]).rows) == ((), ())
    assert codes_of(["b", "a", "b", None]).tolist() == [0, 1, 0, 2]
