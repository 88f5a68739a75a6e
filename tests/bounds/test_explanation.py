"""Why bounds are as wide as they are: neighbours by brute force, factors that multiply to the width, words that fit."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from scipy.spatial.distance import cdist

from mace_bounds import BoundsPredictor
from mace_bounds.bounds import Contribution, Explanation
from mace_bounds.bounds.explanation import verdict_of
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.features import FeatureStore


@pytest.fixture(scope="module")
def predictor(tiny_model_folder, tiny_fit):
    return BoundsPredictor(tiny_model_folder, tiny_fit.folder)


@pytest.fixture(scope="module")
def explained(predictor, labelled_crystals) -> list[Explanation]:
    return [predictor.explain(labelled_crystals[k], n_neighbours=7) for k in (3, 11, 42)]


def test_the_nearest_labelled_crystals_by_brute_force(explained, predictor, tiny_store):
    table = FeatureStore(tiny_store).read()
    ids = table.table["id"].tolist()
    per_atom = table.features / table.table["n_atoms"].to_numpy()[:, None]
    own = [ids.index(name) for name in predictor.head.kept_rows.ids]
    spread = per_atom[own].std(axis=0)
    z = ((per_atom - per_atom[own].mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)).clip(-6, 6)
    error = (table.table["energy_ev"] - table.table["energy_model_ev"]) / table.table["n_atoms"] * 1000
    for told, k in zip(explained, (3, 11, 42), strict=True):
        distance = cdist(z[[k]], z[own])[0] / np.sqrt(z.shape[1])
        order = np.argsort(distance, kind="stable")[:7]
        np.testing.assert_allclose([n.distance for n in told.neighbours], distance[order], atol=3e-3)
        for neighbour in told.neighbours:
            place = ids.index(neighbour.id)
            assert neighbour.formula == table.table["formula"][place]
            assert neighbour.error_mev_per_atom == pytest.approx(error[place], rel=1e-4, abs=1e-3)
        assert told.usual_error_mev_per_atom == pytest.approx(np.median(np.abs(error[own])), rel=1e-5)
        assert told.nearest_distance == told.neighbours[0].distance


def test_neighbours_are_inside_their_bounds_where_predict_says_so(explained, predictor, labelled_crystals):
    names = {atoms.info["id"]: atoms for atoms in labelled_crystals}
    kept = predictor.head.kept_rows
    known = [name for name, level in zip(kept.ids, kept.covered_above_level, strict=True) if level == level]
    table = predictor.predict([names[name] for name in known[:20]])
    covered = dict(zip(kept.ids, kept.covered_above_level, strict=True))
    assert [covered[name] <= 0.95 for name in table["id"]] == table["inside"].tolist()
    seen_by_all = [n for told in explained for n in told.neighbours if n.id not in known]
    assert all(n.inside is None for n in seen_by_all)


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_factors_multiply_to_the_width(predictor, labelled_crystals, level):
    for atoms in labelled_crystals[:4]:
        told = predictor.explain(atoms, level)
        row = predictor.predict(atoms, level).iloc[0]
        made = told.typical_sigma_mev_per_atom * np.prod([part.factor for part in told.contributions])
        assert made == pytest.approx(told.sigma_mev_per_atom, rel=1e-9)
        half = (row["upper_mev_per_atom"] - row["lower_mev_per_atom"]) / 2
        assert told.sigma_mev_per_atom * told.conformal_factor == pytest.approx(half, rel=1e-6)
        # split conformal: the factor is the quantile of the left-out scores
        assert told.conformal_factor == pytest.approx(predictor.head.conformal.half_width(level), rel=1e-6)
        assert told.bounds.level == level


def test_it_is_plain_values_and_one_line(explained):
    for told in explained:
        plain = json.loads(json.dumps(told.to_dict(), allow_nan=False))
        assert plain["verdict"] == told.verdict
        assert plain["neighbours"][0]["id"] == told.neighbours[0].id
        assert plain["bounds"]["formula"] == told.bounds.formula
        assert "\n" not in repr(told)
        assert repr(told).startswith(f"Explanation({told.bounds.formula}: ")


def test_what_the_fit_has_not_seen_is_named(predictor):
    told = predictor.explain(bulk("PbTe", "rocksalt", 6.46))
    assert set(told.unseen_elements) == {"Pb", "Te"}
    assert told.unseen_pairs == ("Te-Pb",)
    assert "Te, Pb are in no crystal that the head was fitted on" in told.verdict


def test_the_table_of_one_is_that_of_predict(predictor, labelled_crystals):
    for given in (labelled_crystals[3], bulk("Al", a=0.4)):
        table, told = predictor.predict_one(given)
        pd.testing.assert_frame_equal(table, predictor.predict(given))
        assert told == table["reason"].iloc[0] or told.bounds == predictor.bounds(given)


def test_what_cannot_be_explained_has_a_reason(predictor):
    with pytest.raises(StructureError, match="explain takes one structure"):
        predictor.explain([bulk("Al"), bulk("Cu")])
    with pytest.raises(StructureError, match="no volume"):
        predictor.explain(bulk("Al", a=0.4))


def test_a_head_without_rows_says_so_and_tells_the_rest(tiny_model_folder, tiny_fit, labelled_crystals):
    bare = BoundsPredictor(tiny_model_folder, replace(tiny_fit.head, kept_rows=None))
    told = bare.explain(labelled_crystals[3])
    assert "carries no rows of its data" in told.verdict
    assert told.verdict.endswith("fit it again")
    assert told.neighbours == told.contributions == ()
    assert told.sigma_mev_per_atom * told.conformal_factor == pytest.approx(told.half_width_mev_per_atom)
    kept = tiny_fit.head.kept_rows
    foreign = replace(kept, typical_terms=np.append(kept.typical_terms, 0.0))
    with pytest.raises(HeadError, match="not those of its scale; fit it again"):
        BoundsPredictor(tiny_model_folder, replace(tiny_fit.head, kept_rows=foreign)).explain(
            labelled_crystals[3]
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sigma_percentile": 40.2}, "ordinary: width at the 40th percentile of the head's data"),
        ({"sigma_percentile": 93.0}, "wide: width at the 93rd percentile of the head's data, most by more (σ × 1.8)"),
        ({"sigma_percentile": 11.0}, "narrow: width at the 11th percentile of the head's data, most by less (σ × 0.5)"),
        ({"nearest_distance": 3.1}, "far from the data: 3.1 × the distance within which 95 % of the head's crystals"),
        ({"neighbour_error_mev_per_atom": 180.4}, "labelled crystals err by 180 meV/atom, all of the data by 45"),
        ({"unseen_elements": ("Po",)}, "Po is in no crystal that the head was fitted on"),
    ],
)  # fmt: skip
def test_the_verdict_in_words(explained, changes, said):
    known = replace(
        explained[0],
        sigma_percentile=50.0,
        contributions=(Contribution("less", 0.5), Contribution("more", 1.8)),
        nearest_distance=0.5,
        far_distance=1.0,
        neighbour_error_mev_per_atom=40.0,
        usual_error_mev_per_atom=45.0,
        unseen_elements=(),
    )
    assert said in verdict_of(replace(known, **changes))
