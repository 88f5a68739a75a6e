"""An audit from end to end: files, honest coverage, resuming; numbers recomputed by plain pandas."""

import io
import json
import re
import shutil
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io import write

from mace_bounds import AuditConfig, audit, load_head, plot
from mace_bounds._io import locked
from mace_bounds.auditing.report import write_report
from mace_bounds.columns import PROVENANCE, names
from mace_bounds.errors import HeadError, SourceError, StoreError
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting.measured import Measured, evaluation_subset, sentence
from mace_bounds.flags import FLAGS
from mace_bounds.levels import Levels
from mace_bounds.tables import read_table

CONFIG = AuditConfig(extract=ExtractSettings(shard_rows=64, workers=1))
PLAIN = AuditConfig(plots=False, extract=ExtractSettings(workers=1))


@pytest.fixture(scope="module")
def source(labelled_crystals, tmp_path_factory):
    """Return labelled crystals, one with an absurd label, one that overlaps, one without a label."""
    odd = [atoms.copy() for atoms in labelled_crystals[:3]]
    for index, atoms in enumerate(odd):
        atoms.info = {"id": f"odd-{index}", "source": "odd"}
    odd[0].info["REF_energy"] = -1000.0 * len(odd[0])
    odd[1] = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True, info=odd[1].info)
    path = tmp_path_factory.mktemp("source") / "mixed.extxyz"
    write(path, [*labelled_crystals, *odd], format="extxyz")
    return path


@pytest.fixture(scope="module")
def result(source, tiny_model_folder, tiny_fit, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "out"
    return audit(source, out, model=tiny_model_folder, head=tiny_fit.folder, config=CONFIG)


@pytest.fixture(scope="module")
def bounds(result):
    return pd.read_parquet(result.folder / "bounds.parquet")


def test_coverage_in_the_summary_is_that_of_the_bounds_table(result, bounds):
    summary = json.loads((result.folder / "summary.json").read_text())
    usable = bounds[bounds["error_mev_per_atom"].abs() < 3000]
    unseen = usable[usable["seen_in"] == "unseen"]
    assert summary["measured_on"]["rows"] == "unseen"
    assert summary["measured_on"]["n"] == len(unseen) >= 30
    assert len(summary["coverage"]) == len(result.summary["head"]["levels"]) >= 3
    for name, rows in (("coverage", unseen), ("coverage_all_labelled", usable)):
        for told in summary[name]:
            level = f"{100 * told['level']:g}"
            error = rows["error_mev_per_atom"]
            inside = error.between(rows[f"lower_{level}_mev_per_atom"], rows[f"upper_{level}_mev_per_atom"])
            assert told["coverage"] == pytest.approx(inside.mean(), abs=1e-6)
            assert told["n"] == len(rows)


def test_coverage_by_group_is_that_of_the_bounds_table(result, bounds):
    table = pd.read_csv(result.folder / "coverage.csv")
    unseen = bounds[(bounds["seen_in"] == "unseen") & (bounds["error_mev_per_atom"].abs() < 3000)]
    oxygen = unseen[unseen["chemical_system"].str.split("-").map(lambda elements: "O" in elements)]
    told = table[(table["rows"] == "unseen") & (table["group"] == "O") & (table["level"] == 0.9)].iloc[0]
    assert told["by"] == "element"
    assert told["n"] == len(oxygen)
    inside = oxygen["error_mev_per_atom"].between(
        oxygen["lower_90_mev_per_atom"], oxygen["upper_90_mev_per_atom"]
    )
    assert told["coverage"] == pytest.approx(inside.mean())
    groups = set(table["by"])
    assert {"all", "source", "chemistry", "element", "size", "seen_in"} <= groups


def test_odd_rows_are_counted_and_listed(result):
    counts = result.summary["counts"]
    assert counts == counts | {
        "structures": 203,
        "scored": 202,
        "failed": 1,
        "labelled": 201,
        "suspect_labels": 1,
    }
    assert len(result.summary["failures"]) == 1
    assert pd.read_csv(result.folder / "failures.csv")["id"].tolist() == ["odd-1"]
    outside = pd.read_csv(result.folder / "violations.csv")
    assert outside["id"].iloc[0] == "odd-0"
    assert "suspect_label" in outside["flags"].iloc[0]
    assert outside["excess_half_widths"].is_monotonic_decreasing


def test_the_report_holds_the_numbers_and_needs_no_other_file(result):
    page = result.report.read_text()
    for row in result.summary["coverage"]:
        assert f"{100 * row['coverage']:.1f} %" in page
    assert result.summary["model"]["digest"] in page
    assert "odd-0" in page
    assert page.count('src="data:image/') == len({p.stem for p in (result.folder / "plots").iterdir()})
    assert 'src="http' not in page
    links = re.findall(r'(?:href|src)="([^"#][^"]*)"', page)
    beside = {link for link in links if not link.startswith("data:")}
    assert "bounds.csv" in beside
    assert all((result.folder / link).exists() for link in beside)


def test_the_report_explains_flags_and_tells_warnings(result, tmp_path):
    page = result.report.read_text()
    assert result.summary["flags"]["suspect_label"] == 1
    assert FLAGS["suspect_label"].meaning.replace("'", "&#39;") in page
    assert "Warnings of the fits" not in page
    for name in ("coverage.csv", "atlas.csv"):
        shutil.copy(result.folder / name, tmp_path)
    write_report(tmp_path, {**result.summary, "warnings": ["the fit of x did not converge"]})
    assert "<li>the fit of x did not converge</li>" in (tmp_path / "report.html").read_text()


def test_the_summary_says_how_long_each_stage_took(result):
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result.summary))
    assert summary["started"] <= summary["finished"]
    assert list(summary["seconds"]) == ["features", "bounds", "statistics", "plots", "report"]


def test_every_table_says_what_it_was_made_with(result, tiny_fit):
    import pyarrow.parquet as pq

    head, summary = load_head(tiny_fit.folder), result.summary
    tables = [path for path in result.folder.iterdir() if path.suffix in (".csv", ".parquet")]
    assert len(tables) == 9
    for path in tables:
        table = read_table(path)
        assert set(names(PROVENANCE)) <= set(table), path.name
        assert set(table["model"]) == {"tiny"}
        assert set(table["head"]) == {tiny_fit.folder.name}
        assert set(table["model_digest"]) == {summary["model"]["digest"][:12]}
        assert set(table["head_digest"]) == {head.digest[:12]}
        assert table["level"].between(0, 1).all()
    footer = pq.read_schema(result.folder / "bounds.parquet").metadata
    assert footer[b"model_digest"].decode() == summary["model"]["digest"]
    assert footer[b"head_digest"].decode() == head.digest == summary["head"]["digest"]


def test_ids_that_look_like_numbers_stay_as_they_are(
    labelled_crystals, tiny_model_folder, tiny_fit, tmp_path
):
    odd = ["0001", "1e5", "NA", "null"]
    crystals = [atoms.copy() for atoms in labelled_crystals[:60]]
    for atoms, name in zip(crystals[:4], odd, strict=True):
        atoms.info["id"] = name
    crystals[0].info["REF_energy"] -= 2.0 * len(crystals[0])  # outside of its bounds, and suspect
    crystals[1] = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[3] * 3, pbc=True)
    crystals[1].info = {"id": "1e5", "source": "007"}
    write(tmp_path / "odd.extxyz", crystals, format="extxyz")
    out = tmp_path / "out"
    audit(tmp_path / "odd.extxyz", out, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    for name in ("bounds.parquet", "bounds.csv"):
        assert read_table(out / name)["id"].tolist()[:4] == odd
    assert "0001" in read_table(out / "violations.csv")["id"].tolist()
    assert "0001" in read_table(out / "suspects.csv")["id"].tolist()
    failures = read_table(out / "failures.csv")
    assert failures["id"].tolist() == ["1e5"]
    assert failures["source"].tolist() == ["007"]
    assert "<code>0001</code>" in (out / "report.html").read_text()


def test_a_second_run_into_one_folder_is_refused(tiny_store, tiny_model_folder, tiny_fit, tmp_path):
    out = tmp_path / "out"
    with locked(out), pytest.raises(StoreError, match=r"another run is writing into .*\(process \d+ on"):
        audit(tiny_store, out, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert not list(out.glob("[!.]*"))


def test_every_file_that_the_summary_names_is_there(result):
    assert {"report.html", "summary.json", "bounds.parquet", "bounds.csv"} <= set(result.summary["files"])
    for name in result.summary["files"]:
        assert (result.folder / name).stat().st_size > 0
    csv = pd.read_csv(result.folder / "bounds.csv")
    parquet = read_table(result.folder / "bounds.parquet")
    assert list(csv["id"]) == list(parquet["id"])
    np.testing.assert_allclose(csv["upper_95_mev_per_atom"], parquet["upper_95_mev_per_atom"])


def test_an_interrupted_audit_is_resumed(result, source, tiny_model_folder, tiny_fit, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(result.folder / "features", out / "features")
    (out / "features" / "shard-000002.parquet").unlink()
    again = audit(
        source, out, model=tiny_model_folder, head=tiny_fit.folder, config=replace(CONFIG, plots=False)
    )
    own = {name: again.summary[name] for name in ("files", "started", "finished", "seconds")}
    assert again.summary == {**result.summary, **own}
    for name in ("bounds.parquet", "bounds.csv", "coverage.csv", "suspects.csv", "atlas.csv"):
        pd.testing.assert_frame_equal(read_table(out / name), read_table(result.folder / name))
    for shard in sorted((result.folder / "features").glob("shard-*.parquet")):
        assert (out / "features" / shard.name).read_bytes() == shard.read_bytes()


def test_a_run_of_a_store_that_was_killed_before_its_first_table_goes_on(
    tiny_store, tiny_model_folder, tiny_fit, tmp_path
):
    left = tmp_path / ".bounds.parquet.0a1b2c3d.mace-bounds"
    left.mkdir()
    (left / "bounds.parquet").write_bytes(b"PAR1")
    found = audit(tiny_store, tmp_path, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert found.summary["counts"]["structures"] == 200
    assert not left.exists()
    (tmp_path / "summary.json").unlink()  # killed before its end
    again = audit(tiny_store, tmp_path, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert again.summary["coverage"] == found.summary["coverage"]


def test_a_feature_store_is_a_source(tiny_store, tiny_model_folder, tiny_fit, tmp_path):
    found = audit(tiny_store, tmp_path / "out", model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert found.summary["counts"]["structures"] == 200
    assert not (tmp_path / "out" / "features").exists()
    wanted = tiny_fit.head.provenance["coverage"]
    assert [row["coverage"] for row in found.summary["coverage"]] == [row["coverage"] for row in wanted]
    atlas = set(pd.read_csv(found.folder / "atlas.csv")["by"])
    assert {"density", "volume_per_atom"} <= atlas  # every store knows these
    assert not {"space_group", "crystal_system", "hull_distance"} & atlas
    assert not found.summary["atlas"]["symmetry"]


def test_rows_that_were_all_used_before_do_not_pass_for_a_measurement(
    labelled_crystals, tiny_model_folder, tiny_fit, tmp_path
):
    seen = [atoms for atoms in labelled_crystals if atoms.info["in_training"]]
    found = audit(seen, tmp_path / "out", model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert found.summary["measured_on"]["rows"] == "all"
    assert "this does not measure coverage on new crystals" in found.summary["measured_on"]["sentence"]
    assert "Not a measure for new crystals" in found.report.read_text()


@pytest.fixture(scope="module")
def whole_result(tiny_store, tiny_model_folder, whole_fit, tmp_path_factory):
    """Audit with a head that was also fitted on compositions of the model's training."""
    out = tmp_path_factory.mktemp("audit") / "whole"
    return audit(tiny_store, out, model=tiny_model_folder, head=whole_fit.folder, config=PLAIN)


def test_a_head_that_knows_the_models_training_is_measured_on_what_it_has_not_used(whole_result, whole_fit):
    table = pd.read_parquet(whole_result.folder / "bounds.parquet")
    free = table[~table["seen_in"].isin(["fit", "calibration"])]
    known = int(free["flags"].str.contains("in_training").sum())
    about = whole_result.summary["measured_on"]
    assert about["rows"] == "new_to_head"
    assert about["n"] == len(free) == whole_fit.splits["test"]
    assert about["in_training"] == known
    assert 0 < known < len(free)
    assert "that the head has not used" in about["sentence"]
    assert f"; {known} of them have compositions that the model's own training has seen" in about["sentence"]
    assert "neither the head nor" not in about["sentence"]
    wanted = whole_fit.head.provenance["coverage"]
    assert [row["coverage"] for row in whole_result.summary["coverage"]] == [
        row["coverage"] for row in wanted
    ]


def test_every_role_stays_in_the_tables_of_such_a_head(whole_result):
    table = pd.read_csv(whole_result.folder / "coverage.csv")
    assert set(table["rows"]) == {"new_to_head", "all"}
    roles = table[(table["rows"] == "all") & (table["by"] == "seen_in")].groupby("group")["n"].first()
    assert roles.to_dict() == {k: n for k, n in whole_result.summary["seen_in"].items() if n >= 10}
    assert {"fit", "calibration", "unseen"} <= set(roles.index)


def test_the_report_and_the_plots_of_such_a_head_say_what_the_rows_are(whole_result, tmp_path):
    page, known = whole_result.report.read_text(), whole_result.summary["measured_on"]["in_training"]
    assert "New to the head, not all new to the model" in page
    assert "only the first line is a measure for new crystals" in page
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot(whole_result.folder, formats=["svg"], folder=tmp_path)
    for name in ("parity", "coverage_by_chemistry"):
        drawn = " ".join(re.sub("<[^>]*>", " ", (tmp_path / f"{name}.svg").read_text()).split())
        assert "not used by the head" in drawn
        assert f"({known} known to the model)" in drawn


@pytest.mark.parametrize(("n_seen", "share"), [(0, "none"), (7, "7"), (40, "all")])
def test_the_sentence_counts_what_the_model_knows(whole_fit, n_seen, share):
    rows = pd.DataFrame({"seen_in": ["model_training"] * n_seen + ["unseen"] * (40 - n_seen)})
    rows["flags"] = ["extrapolates;in_training"] * n_seen + [""] * (40 - n_seen)
    chosen = evaluation_subset(Measured(rows, Levels((0.9,))), whole_fit.head)
    said = sentence(chosen, {"model_training": n_seen, "unseen": 40 - n_seen, "fit": 5}, whole_fit.head)
    assert said == (
        "40 labelled structures of compositions that the head has not used; "
        f"{share} of them have compositions that the model's own training has seen "
        "(5 in the fit of the head: reported separately)"
    )


def test_rows_of_the_models_training_carry_no_headline_of_another_head(tiny_fit, whole_fit):
    rows = pd.DataFrame({"seen_in": ["model_training"] * 40 + ["unseen"] * 5, "flags": ""})
    few = evaluation_subset(Measured(rows, Levels((0.9,))), tiny_fit.head)
    assert (few.name, len(few)) == ("all", 45)
    assert (
        "of which only 5 are of compositions that neither the head nor the model's own training has seen"
        in sentence(few, {"model_training": 40, "unseen": 5}, tiny_fit.head)
    )
    assert len(evaluation_subset(Measured(rows, Levels((0.9,))), whole_fit.head)) == 45
    rows["seen_in"] = "fit"
    used = evaluation_subset(Measured(rows, Levels((0.9,))), whole_fit.head)
    assert used.name == "all"
    assert "every one of a composition that was used before" in sentence(used, {"fit": 45}, whole_fit.head)


def test_without_labels_there_are_bounds_but_no_coverage(
    labelled_crystals, tiny_model_folder, tiny_fit, tmp_path
):
    bare = [atoms.copy() for atoms in labelled_crystals[:12]]
    for atoms in bare:
        atoms.info = {"id": atoms.info["id"]}
    found = audit(bare, tmp_path / "out", model=tiny_model_folder, head=tiny_fit.folder, config=CONFIG)
    assert found.coverage is None
    assert "coverage" not in found.summary
    assert found.summary["measured_on"]["n"] == 0
    assert len(read_table(tmp_path / "out" / "bounds.parquet")) == 12
    assert not (tmp_path / "out" / "coverage.csv").exists()
    assert [path.stem for path in plot(tmp_path / "out", formats=["svg"])] == ["widths"]
    assert "Coverage is not measured here" in found.report.read_text()


def test_plots_are_drawn_again_elsewhere(result, tmp_path):
    written = plot(result.folder, formats=["pdf"], folder=tmp_path / "new", level=0.9)
    assert {path.stem for path in written} >= {"calibration", "parity", "coverage_by_element"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in written)
    with pytest.raises(StoreError, match="gif"):
        plot(result.folder, formats=["gif"])
    with pytest.raises(HeadError, match=r"not for 0\.5"):
        plot(result.folder, level=0.5)
    with pytest.raises(StoreError, match="finished audit"):
        plot(tmp_path)


def test_foreign_folders_and_heads_are_refused(tiny_store, tiny_model_folder, tiny_fit, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        audit(tiny_store, tmp_path, model=tiny_model_folder, head=tiny_fit.folder, config=CONFIG)
    with pytest.raises(HeadError, match="no installed head fits"):
        audit(tiny_store, tmp_path / "out", model=tiny_model_folder, head=None)


@pytest.mark.parametrize("source", ["-", "iterator"])
def test_what_can_be_read_once_is_looked_at_before_the_model_is_loaded(
    source, labelled_crystals, tiny_model_folder, tiny_fit, tmp_path, monkeypatch
):
    """Standard input and iterators: nothing that can be used in them is an error of a second, and all is audited."""

    def given(atoms):
        if source != "-":
            return iter(atoms)
        text = io.StringIO()
        write(text, atoms, format="extxyz")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.getvalue().encode())))
        return source

    overlapping = labelled_crystals[0].copy()
    overlapping.positions[:] = 0.0
    overlapping += overlapping[:1]
    with pytest.raises(SourceError, match="no structure can be used"):
        audit(given([overlapping]), tmp_path / "a", model="no-such-model")
    found = audit(
        given([overlapping, *labelled_crystals[:12]]),
        tmp_path / "a",
        model=tiny_model_folder,
        head=tiny_fit.folder,
        config=AuditConfig(plots=False),
    )
    assert found.summary["counts"]["scored"] == 12
    assert found.summary["counts"]["failed"] == 1


def test_a_source_of_twelve_has_a_report(labelled_crystals, tiny_model_folder, tiny_fit, tmp_path):
    found = audit(
        labelled_crystals[:12], tmp_path / "a", model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN
    )
    assert found.summary["labels"]["sentences"] == ["labels: 12 from REF_energy."]
    assert "labels: 12 from REF_energy." in found.report.read_text(encoding="utf-8")
