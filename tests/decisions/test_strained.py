"""One crystal at two volumes: which pairs are that, how wide they are, and what a head is taught of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from mace_bounds.calibration import DesignRows
from mace_bounds.decisions.choosing import LeftOutErrors, fit_strained
from mace_bounds.decisions.groups import Strained, log_volumes, polymorph_pairs
from mace_bounds.decisions.joint import strained_std


def table():
    """Rock salt at three volumes (the third hardly another), its other cell, a polymorph, and one of no known group."""
    return pd.DataFrame(
        {
            "formula": ["MgO"] * 6,
            "n_atoms": [2, 2, 2, 8, 2, 2],
            "space_group": ["225 Fm-3m", "225 Fm-3m", "225 Fm-3m", "225 Fm-3m", "221 Pm-3m", None],
            "volume_a3": [20.0, 16.0, 20.2, 80.0, 18.0, 14.0],
        }
    )


def ends(pairs):
    return {tuple(sorted(row)) for row in pairs.coefficients.indices.reshape(-1, 2).tolist()}


def test_one_crystal_has_one_group_and_one_size_of_cell():
    strained = Strained.of(table())
    found = strained.pairs(table()["formula"])
    assert ends(found) == {(0, 1), (1, 2)}
    np.testing.assert_allclose(found.weights, 0.5)  # of three structures each with two others
    assert (found.coefficients.sum(axis=1) == 0).all()


def test_what_is_strained_is_no_polymorph():
    hashes = list("abcdef")
    every = ends(polymorph_pairs(table()["formula"], hashes))
    assert len(every) == 15
    assert every - ends(polymorph_pairs(table()["formula"], hashes, Strained.of(table()))) == {(0, 1), (1, 2)}


def test_volumes_that_are_not_known_strain_nothing():
    old = table().assign(volume_a3=np.nan)
    assert np.isnan(log_volumes(old)).all()
    assert not len(Strained.of(old).pairs(old["formula"]))
    np.testing.assert_allclose(log_volumes(table())[[0, 3]], np.log(10.0))


def test_the_width_is_the_smaller_error_times_the_strain():
    pairs = csr_matrix(np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]]))
    width = strained_std(pairs, np.array([0.03, 0.05, 0.02]), np.array([0.12, 0.0]))
    np.testing.assert_allclose(width, [0.03 * 0.13, 0.02 * 0.05], rtol=1e-12)  # 5, 12, 13
    assert not len(strained_std(pairs[:0], np.ones(3), np.empty(0)))


def made(n=300, seed=0):
    """Crystals at two volumes whose errors differ in proportion to the strain, and share the rest."""
    random = np.random.default_rng(seed)
    strain = random.uniform(0.06, 0.6, n)
    sigma = np.exp(0.5 * random.standard_normal(n)) * 0.02
    shared, slope = sigma * random.standard_normal((2, n))
    error = np.column_stack([shared, shared + strain * slope]).ravel()
    log_volume = np.column_stack([np.full(n, 3.0), 3.0 - strain]).ravel()
    names = np.repeat([f"c{i}" for i in range(n)], 2)
    fractions = np.eye(118)[np.zeros(2 * n, dtype=int)]
    rows = DesignRows(np.zeros((2 * n, 1)), fractions, False)
    hashes = np.array([f"h{i}" for i in range(2 * n)])
    return LeftOutErrors(rows, names, hashes, error, np.repeat(sigma, 2), Strained(names, log_volume))


def test_strain_is_chosen_where_errors_go_with_it_and_covers():
    scores, tried = fit_strained(made())
    assert scores["strained"].joint
    assert scores["strained"].n_compositions == 300
    at = {(row.likeness, row.level): row for row in tried}
    ratio = (
        at["strained", 0.95].interval_score_mev_per_atom / at["independent", 0.95].interval_score_mev_per_atom
    )
    assert ratio < 0.8
    assert at["strained", 0.9].coverage == pytest.approx(0.9, abs=0.03)
    # |slope| of a normal is below 1.96 σ in 95 of 100; the floor of the strain makes it a little less
    assert 1.5 < scores["strained"].half_width(0.95) < 2.2


def test_errors_that_do_not_cancel_keep_independent_widths():
    data, random = made(), np.random.default_rng(1)
    data = replace(data, error=data.std * random.standard_normal(len(data.error)))
    scores, _ = fit_strained(data)
    assert not scores["strained"].joint


def test_nothing_to_measure_is_nothing_said():
    assert fit_strained(replace(made(), strained=None)) == ({}, [])
    unknown = Strained(np.full(600, ""), np.zeros(600))
    assert fit_strained(replace(made(), strained=unknown)) == ({}, [])
