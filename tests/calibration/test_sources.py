"""Sources left out, and the promise that is made for every source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.toy_table import toy_table
from mace_bounds.calibration import (
    DesignRows,
    FitConfig,
    LeftOutScores,
    TrainedRows,
    conformal_layer,
    conformal_quantile,
    fit_head,
    load_head,
    residual_ev_per_atom,
    study_sources,
)
from mace_bounds.calibration.layer import source_groups
from mace_bounds.calibration.sources import (
    ScaleChoice,
    _Trial,
    best_choice,
    best_inside,
    large_sources,
)
from mace_bounds.decisions.kept import left_out_errors
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.fitting import promise

MANIFEST = Manifest("toy", "d" * 64, "Default", "readout", tuple("abc"), (0.0,) * 4, "float64", 8, {})
FAST = FitConfig(n_folds=2, kept_rows=0, scale="constant", composition=False, ellipsoid=False)
NONE = TrainedRows(
    DesignRows(np.empty((0, 3)), np.empty((0, 118)), composition=False),
    np.empty(0),
    np.empty(0, dtype=str),
    np.empty(0, dtype=str),
)
WIDTHS = {"calm": 0.01, "usual": 0.03, "wild": 0.09, "few": 0.03}


def toy_rows(n: int, seed: int, names=("calm", "usual", "wild")) -> FeatureRows:
    """Rows whose errors have a size of their source that no feature tells, and half of them none of its own."""
    rng = np.random.default_rng(seed)
    source = rng.choice(names, n)
    if "few" in names:
        source = np.where((source == "few") & (np.cumsum(source == "few") > 40), "calm", source)
    x = rng.normal(size=(n, 3))
    residual = rng.normal(size=n) * np.array([WIDTHS[name] for name in source])
    table = toy_table(
        residual,
        np.full(n, 2),
        [[20 + int(z)] for z in rng.integers(0, 5, n)],
        source=source,
        formula=[f"F{seed}-{k}" for k in range(n)],
        structure_hash=[f"{seed}-{i}" for i in range(n)],
    )
    return FeatureRows(table, x * 2)


@pytest.fixture(scope="module")
def fitted():
    return fit_head(toy_rows(600, 0), MANIFEST, FAST)


def test_sources_of_a_hundred_rows_are_large():
    names = np.array(["b"] * 100 + ["a"] * 100 + ["c"] * 200 + ["d"] * 99 + [""] * 300)
    assert large_sources(names) == ("c", "a", "b")


def test_every_source_is_covered_by_itself_and_others_get_the_widest(fitted):
    head, new = fitted.head, toy_rows(3000, 1)
    assert (head.guarantee, sorted(head.conformal.sources)) == ("every-source", ["calm", "usual", "wild"])
    assert all(name in promise(head) for name in ("calm", "usual", "wild", "any other the widest"))
    error, source = residual_ev_per_atom(new), new.table["source"].to_numpy(str)
    low, high = head.intervals(new).at(0.9)
    for name in WIDTHS.keys() - {"few"}:
        inside = (low <= error) & (error <= high)
        assert inside[source == name].mean() == pytest.approx(0.9, abs=0.04)
    elsewhere = replace(new, given=new.table.assign(source="elsewhere.cif"))
    low_e, high_e = head.intervals(elsewhere).at(0.9)
    assert (low_e <= low + 1e-12).all()
    assert (high_e >= high - 1e-12).all()
    wild = source == "wild"
    np.testing.assert_allclose(high_e[wild], high[wild])  # the widest is that of the wild
    untold = replace(new, given=new.table.assign(source=None))
    np.testing.assert_array_equal(head.intervals(untold).at(0.9)[1], high_e)


def test_covering_levels_agree_with_the_bounds(fitted):
    head, new = fitted.head, toy_rows(200, 2, ("calm", "wild", "usual"))
    new = replace(
        new, given=new.table.assign(source=np.where(np.arange(200) % 2, new.table["source"], "new"))
    )
    error, said = residual_ev_per_atom(new), head.intervals(new)
    covering = head.min_covering_level(said, error)
    for place, level in enumerate(head.levels):
        inside = (said.lower[:, place] <= error) & (error <= said.upper[:, place])
        np.testing.assert_array_equal(
            inside[np.abs(covering - level) > 1e-9], (covering < level)[np.abs(covering - level) > 1e-9]
        )


def test_what_is_left_out_is_measured_without_it(fitted):
    rows = {row["source"]: row for row in fitted.head.provenance["sources_left_out"]["left_out"]}
    assert rows.keys() == {"calm", "usual", "wild"}
    # without the wild ones, 90 % bounds are those of the usual: ±1.645 · 0.03 hold 41.6 % of normal errors of 0.09
    assert rows["wild"]["coverage"]["0.9"] == pytest.approx(0.416, abs=0.09)
    assert rows["calm"]["coverage"]["0.9"] > 0.99


def test_a_study_is_nested():
    """What is said of a source does not depend on its labels, but for the errors that are counted."""
    rows = toy_rows(450, 3)
    wild = rows.table["source"].to_numpy(str) == "wild"
    worse = rows.table.assign(energy_ev=rows.table["energy_ev"].where(~wild, rows.table["energy_ev"] + 7.0))
    first, second = (
        {row.source: row for row in study_sources(part, replace(FAST, scale="best"), NONE).left_out}
        for part in (rows, replace(rows, given=worse))
    )
    for name in ("kind", "temper", "median_width_mev_per_atom"):
        assert getattr(first["wild"], name) == getattr(second["wild"], name)
    assert second["wild"].coverage["0.95"] < 0.01 < first["wild"].coverage["0.95"]


def trial(rng, right: bool) -> _Trial:
    """Errors of two sources with sizes that "pops" tells, and of a third where it is right, or upside down."""
    size = np.exp(rng.normal(size=900))
    error = size * rng.normal(size=900)
    inside, out = slice(0, 600), slice(600, 900)
    names, groups = np.array(["a", "b"] * 300), np.array([f"F{k}" for k in range(900)])
    said = size if right else 1 / size
    return _Trial(
        error_in=error[inside],
        source_in=names,
        groups_in=groups[inside],
        own_in=error[inside],
        sigma_in={"constant": np.ones(600), "pops": size[inside]},
        error_out=error[out],
        source_out=np.full(300, "c"),
        groups_out=groups[out],
        own_out=error[out],
        sigma_out={"constant": np.ones(300), "pops": said[out]},
    )


def test_a_scale_that_misleads_on_every_source_left_out_loses_to_the_constant():
    rng, kinds = np.random.default_rng(7), ("constant", "pops")
    wrong = [trial(rng, right=False) for _ in range(3)]
    assert best_inside(wrong, kinds).kind == "pops"
    assert best_choice(wrong, kinds) == ScaleChoice("constant", 1.0)
    assert best_choice([trial(rng, right=True) for _ in range(3)], kinds) == ScaleChoice("pops", 1.0)
    # between sources that disagree nothing can be told: the safe power stays
    mixed = [trial(rng, right=True), trial(rng, right=True), trial(rng, right=False)]
    assert best_choice(mixed[::2], kinds) == ScaleChoice("pops", 0.75)


def test_the_choice_does_not_depend_on_what_is_measured():
    rows, config = toy_rows(400, 8), replace(FAST, scale="best")
    assert study_sources(rows, config, NONE, measure=False) == replace(
        study_sources(rows, config, NONE), left_out=()
    )


@pytest.mark.parametrize("names", [("calm",), ("calm", "wild"), ("calm", "wild", "few")])
def test_without_three_sources_the_promise_is_pooled(names):
    study = study_sources(toy_rows(350, 4, names), FAST, NONE)
    assert (study.guarantee, study.choice, study.left_out) == ("pooled", None, ())
    assert "of 3 sources" in study.why


@pytest.mark.parametrize("guarantee", ["every-source", "pooled"])
def test_sources_of_one_composition_each_or_of_the_same_ones_tell_nothing(guarantee):
    """Sets of one material: fits go on with what compositions left out say."""
    rows, config = toy_rows(360, 9), replace(FAST, guarantee=guarantee)
    same = rows.table.assign(source=["a", "b", "c"] * 120, formula=[f"F{k // 3}" for k in range(360)])
    study = study_sources(replace(rows, given=same), config, NONE)
    assert (study.guarantee, study.choice, study.left_out) == (guarantee, None, ())
    alone = replace(rows, given=rows.table.assign(formula=rows.table["source"]))
    assert study_sources(alone, config, NONE).guarantee == guarantee


def test_a_pooled_head_says_why():
    head = fit_head(toy_rows(150, 4, ("calm",)), MANIFEST, FAST).head
    assert (head.guarantee, head.conformal.cells) == ("pooled", ())
    assert promise(head) == (
        "Promised for the sources taken together, in the shares of the labels "
        "(1 of 3 sources with 100 labelled rows or more)."
    )


def test_pooled_on_request_measures_the_sources_all_the_same():
    pooled = fit_head(toy_rows(600, 0), MANIFEST, replace(FAST, guarantee="pooled")).head
    assert (pooled.guarantee, pooled.conformal.cells) == ("pooled", ())
    assert {row["source"] for row in pooled.provenance["sources_left_out"]["left_out"]} == {
        "calm",
        "usual",
        "wild",
    }
    with pytest.raises(HeadError, match="guarantee is 'all'"):
        FitConfig(guarantee="all")


def test_a_head_keeps_its_promise_and_its_temper(fitted, tmp_path):
    new = toy_rows(50, 5)
    head = replace(fitted.head, scale=replace(fitted.head.scale, temper=0.75))
    read = load_head(head.save(tmp_path / "head", "card"))
    assert (read.guarantee, read.conformal.sources, read.scale.temper) == (
        "every-source",
        head.conformal.sources,
        0.75,
    )
    assert read.scale.describe() == "constant, to the power 0.75"
    np.testing.assert_array_equal(read.intervals(new).upper, head.intervals(new).upper)


def test_a_source_too_small_for_a_level_gets_there_what_all_get():
    rng = np.random.default_rng(6)
    scores = np.abs(np.concatenate([rng.normal(size=2000), 5.0 + rng.normal(size=105)]))
    sources = ["large"] * 1000 + ["other"] * 1000 + ["small"] * 105
    clusters = [f"c{i}" for i in range(2000)] + [f"s{i % 50}" for i in range(105)]  # 98 % at most
    groups = source_groups(sources, ("large", "other", "small"))
    layer = conformal_layer(LeftOutScores(scores), groups, (0.9, 0.99), clusters=clusters)
    assert layer.sources == ("large", "other", "small")
    rows = source_groups(["small", "large", "new"], layer.sources)
    one = np.ones((1, 3))
    at_90, at_99 = (layer.bounds(0 * one, one, rows, level)[1] for level in (0.9, 0.99))
    assert at_90[0] == conformal_quantile(scores[2000:], 0.9, None, 105 / 50)
    assert at_99[0] == max(scores[2000:].max(), conformal_quantile(scores, 0.99, None, len(scores) / 2050))
    assert at_90[2] == at_90[0]
    assert at_99[2] == at_99[0]
    assert at_99[1] == conformal_quantile(scores[:1000], 0.99)
    level = layer.min_covering_level(0 * one, one, rows, [scores.max() - 1e-9] * 3)
    assert level[0] < 50 * 2.1 / (50 * 2.1 + 2.1)
    assert level[1] > 0.99


def test_differences_are_made_of_the_widths_that_a_source_has(fitted):
    left_out = left_out_errors(fitted, FAST)
    source = fitted.rows.table["source"].to_numpy(str)[fitted.splits == "fit"]
    inside = np.abs(left_out.error) <= left_out.std
    for name in WIDTHS.keys() - {"few"}:
        assert inside[source == name].mean() == pytest.approx(0.68, abs=0.05)
    assert left_out.std[source == "wild"].min() > 4 * left_out.std[source == "calm"].max()
