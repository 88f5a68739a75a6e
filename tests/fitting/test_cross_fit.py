"""Cross-fitted heads: no row is bounded by a head that knows its composition, or its label."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mace_bounds import FitConfig, load_head, score
from mace_bounds.auditing import AuditConfig, audit
from mace_bounds.bounds import read_card
from mace_bounds.calibration import fit_head
from mace_bounds.errors import HeadError, LabelError
from mace_bounds.features import FeatureRows, FeatureStore
from mace_bounds.fitting.cross_fit import cross_fitted, inputs_digest
from mace_bounds.structures import compositions_in

CONFIG = FitConfig(n_folds=2, robust=False, ellipsoid=False)


@pytest.fixture(scope="module")
def rows(tiny_store):
    everything = FeatureStore(tiny_store).read()
    table = everything.table.copy()
    table.loc[[4, 90], "energy_ev"] = np.nan  # two without a label
    table.loc[7, "reason"] = "broken"
    return FeatureRows(table, everything.features)


@pytest.fixture(scope="module")
def manifest(tiny_store):
    return FeatureStore(tiny_store).manifest


@pytest.fixture(scope="module")
def made(rows, manifest):
    return cross_fitted(rows, manifest, CONFIG, n_folds=2)


def test_no_head_has_seen_the_compositions_it_speaks_of(made, rows):
    folds = made.folds(rows)
    formulas = rows.table["formula"].to_numpy()
    for k, head in enumerate(made.heads):
        mine = formulas[folds == k]
        assert len(mine) > 20
        assert not compositions_in(mine, head.fit_compositions).any()
        assert not compositions_in(mine, head.calibration_compositions).any()
        assert compositions_in(formulas[folds == 1 - k], head.fit_compositions).all()
    assert np.flatnonzero(folds == -1).tolist() == [4, 7, 90]


def test_rows_stay_in_order_and_get_their_own_heads_bounds(made, rows):
    table = made.detailed_table(rows, 0.9, None)
    assert table["id"].tolist() == rows.table["id"].tolist()
    assert set(table["seen_in"][made.folds(rows) >= 0]) == {"unknown"}
    assert table["reason"].iloc[7] == "broken"
    for row in (0, 1, 4):
        fold = made.folds(rows)[row]
        head = made.full if fold < 0 else made.heads[fold]
        said = head.intervals(rows.take(np.array([row])))
        assert table["upper_90_mev_per_atom"].iloc[row] == pytest.approx(1e3 * said.at(0.9)[1][0])


def test_split_conformal_is_split_conformal_in_every_fold(rows, manifest):
    config = replace(CONFIG, conformal="split", fit_share=0.5, calibration_share=0.25)
    split = cross_fitted(rows, manifest, config, n_folds=2)
    formulas, folds = rows.table["formula"].to_numpy(), split.folds(rows)
    for k, head in enumerate(split.heads):
        assert head.folds == ()  # no heads of inner folds
        assert not np.isin(head.fit_compositions, head.calibration_compositions).any()
        used = np.union1d(head.fit_compositions, head.calibration_compositions)
        assert compositions_in(formulas[folds == 1 - k], used).all()
        assert not compositions_in(formulas[folds == k], used).any()
        assert head.provenance["settings"]["fit_share"] == pytest.approx(2 / 3)


def test_a_wrong_label_does_not_move_its_own_bounds(made, rows, manifest):
    folds = made.folds(rows)
    table = rows.table.copy()
    held = np.flatnonzero(folds == 0)
    table.loc[held, "energy_ev"] += 50.0
    labelled = FeatureRows(table, rows.features).labelled()
    config = replace(CONFIG, fit_share=1.0, calibration_share=0.0)
    again = fit_head(labelled.take(made.folds(labelled) != 0), manifest, config).head
    some = rows.take(held)
    np.testing.assert_array_equal(again.intervals(some).sigma, made.heads[0].intervals(some).sigma)


ABOUT = {"published": False, "includes_training": False, "versions": {"mace-bounds": "0"}, "sources": {}}
ABOUT |= {"label_kinds": {}, "notes": "", "licence": "", "training_compositions_known": False}


@pytest.fixture(scope="module")
def kept(rows, manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "heads"
    return cross_fitted(rows, manifest, CONFIG, n_folds=2, folder=folder, provenance=ABOUT), folder


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def again(rows, manifest, folder, config=CONFIG):
    """Cross-fit into a folder; return which heads were made anew."""
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    cross_fitted(rows, manifest, config, n_folds=2, folder=folder, provenance=ABOUT)
    return {path.name for path in folder.iterdir() if before.get(path.name) != path.stat().st_ino}


def test_heads_that_were_kept_say_what_those_in_memory_say(made, kept, rows):
    named = ["head", "head_digest"]
    pd.testing.assert_frame_equal(
        kept[0].detailed_table(rows, 0.9, None).drop(columns=named),
        made.detailed_table(rows, 0.9, None).drop(columns=named),
        rtol=1e-9,
        atol=1e-12,
    )
    assert sorted(path.name for path in kept[1].iterdir()) == ["fold-1", "fold-2", "full"]


def test_an_interrupted_fit_goes_on_to_the_same_bytes(kept, rows, manifest, tmp_path):
    folder = tmp_path / "heads"
    shutil.copytree(kept[1], folder)
    assert again(rows, manifest, folder) == set()
    shutil.rmtree(folder / "fold-1")
    left = folder / ".fold-1.0123abcd.mace-bounds" / ".new"  # killed while it was written
    left.mkdir(parents=True)
    (left / "head.safetensors").write_bytes(b"half")
    (folder / "fold-2" / "head.safetensors").write_bytes(b"damaged")
    assert again(rows, manifest, folder) == {"fold-1", "fold-2"}
    assert files(folder) == files(kept[1])


def test_heads_of_other_labels_are_not_taken(kept, rows, manifest, tmp_path):
    shutil.copytree(kept[1], tmp_path / "heads")
    table = rows.table.copy()
    table.loc[0, "energy_ev"] = np.nextafter(table["energy_ev"][0], 0)
    made_anew = again(FeatureRows(table, rows.features), manifest, tmp_path / "heads")
    assert made_anew == {"full", "fold-1", "fold-2"}


def test_whatever_decides_on_a_head_is_in_its_digest(rows, manifest):
    def changed(name):
        table = rows.table.copy()
        table.loc[0, name] = np.nextafter(table[name][0], 0)
        return FeatureRows(table, rows.features)

    features = rows.features.copy()
    features[0, 0] = np.nextafter(features[0, 0], 0)
    inputs = [
        (rows, manifest, CONFIG, {"a": 1}),
        (changed("energy_ev"), manifest, CONFIG, {"a": 1}),
        (changed("energy_model_ev"), manifest, CONFIG, {"a": 1}),  # another column of published energies
        (FeatureRows(rows.table, features), manifest, CONFIG, {"a": 1}),
        (rows, replace(manifest, model="another"), CONFIG, {"a": 1}),
        (rows, manifest, replace(CONFIG, seed=1), {"a": 1}),
        (rows, manifest, CONFIG, {"a": 2}),
    ]
    digests = [inputs_digest(r, m, c, about=about) for r, m, c, about in inputs]
    assert len(set(digests)) == len(inputs)
    assert (
        inputs_digest(FeatureRows(rows.table.copy(), rows.features), manifest, CONFIG, about={"a": 1})
        == digests[0]
    )


def test_the_head_of_all_labels_is_a_head_for_use(kept, labelled_crystals, tiny_model_folder):
    folder = kept[1] / "full"
    assert "left out of it: see `report.html`" in (folder / "README.md").read_text()
    assert read_card(folder).levels == load_head(folder).levels
    assert set(read_card(folder).levels) >= set(kept[0].full.levels)
    table = score(labelled_crystals[:3], model=tiny_model_folder, head=folder, level=0.9)
    assert set(table["seen_in"]) == {"fit"}
    assert table["upper_mev_per_atom"].notna().all()


def test_published_energies_are_audited_from_end_to_end(tiny_store, tiny_model_folder, tmp_path):
    everything = FeatureStore(tiny_store).read()
    published = everything.table["energy_model_ev"] + 0.01 * everything.table["n_atoms"]
    table = pd.DataFrame({"id": everything.table["id"], "e_model": published})[3:]
    table.to_csv(tmp_path / "published.csv", index=False)
    found = audit(
        tiny_store,
        tmp_path / "out",
        model=tiny_model_folder,
        config=AuditConfig(
            level=0.9,
            plots=False,
            predictions=tmp_path / "published.csv",
            energy_column="e_model",
            fit=replace(CONFIG, conformal="split"),
        ),
    )
    bounds = pd.read_parquet(found.folder / "bounds.parquet")
    np.testing.assert_allclose(bounds["energy_model_ev"][3:], published[3:])
    assert bounds["reason"].notna().tolist() == [True] * 3 + [False] * 197
    error = (everything.table["energy_ev"] - published) / everything.table["n_atoms"]
    np.testing.assert_allclose(bounds["error_mev_per_atom"][3:], 1e3 * error[3:])
    assert set(bounds["model"].dropna()) == {"e_model"}
    inside = bounds["error_mev_per_atom"].between(
        bounds["lower_90_mev_per_atom"], bounds["upper_90_mev_per_atom"]
    )
    told = next(row for row in found.summary["coverage"] if row["level"] == 0.9)
    assert told["coverage"] == pytest.approx(inside[3:].mean(), abs=1e-6)
    assert told["n"] == 197
    assert found.summary["measured_on"]["rows"] == "new_to_head"
    assert "the model that published the energies" in found.summary["measured_on"]["sentence"]
    assert found.summary["published"] == {
        "file": str(tmp_path / "published.csv"),
        "column": "e_model",
        "features": found.summary["model"]["name"],
        "n": 197,
        "n_missing": 3,
    }
    page = found.report.read_text()
    assert "another model" in page
    assert "e_model" in page
    assert (found.folder / "suspects.csv").is_file()
    head = found.folder / "heads" / "full"
    assert found.summary["head"]["folder"] == "heads/full"
    assert found.summary["head"]["digest"] == read_card(head).digest
    with pytest.raises(
        HeadError, match=r"bounds energies of e_model, .* gives only features: give the energies"
    ):
        score([], model=tiny_model_folder, head=head)


def test_half_a_request_is_refused(tiny_store, tmp_path):
    with pytest.raises(LabelError, match="--energy-column"):
        AuditConfig(predictions=tmp_path / "t.csv")
    with pytest.raises(HeadError, match="cannot be combined"):
        audit(tiny_store, tmp_path / "b", head="some-head", config=AuditConfig(cross_fit=True))
