"""The dry run: what it says is what is there; nothing is written, nothing is fetched but a page."""

from __future__ import annotations

import json

import pytest
from ase.io import write

from helpers.mp_server import KEY, Project, document_of, entry, serving
from mace_bounds.backbones import WeightsFile, find_weights
from mace_bounds.cli.views import size_text
from mace_bounds.features import ExtractSettings, FeatureStore
from mace_bounds.pipeline import BuildConfig, Plan, build, plan
from mace_bounds.pipeline.plan import Estimate

ASKED = ("--source", "mp:hull=1", "--workers", "1", "--shard-rows", "8", "--dry-run", "--json")


@pytest.fixture
def planned(project, run, settings, tmp_path):
    """What a dry run of the server's documents says, and its standard error."""
    with serving(project) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        done = run("build", tmp_path / "out", *ASKED)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_without_a_key_queries_are_not_counted_and_all_else_is(run, settings, labelled_file, tmp_path):
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        settings.delenv(name, raising=False)
    settings.setattr("pymatgen.core.SETTINGS", {})
    words = (
        "build",
        tmp_path / "out",
        "--source",
        "mp:Li-O",
        "--with",
        labelled_file,
        "--model",
        "mini",
        "--dry-run",
    )
    done = run(*words)
    assert done.exit_code == 0
    assert "mp:chemsys=Li-O: not counted" in done.stdout
    assert "200 structures, 200 with a label" in " ".join(done.stdout.split())
    assert "set MP_API_KEY" in done.stderr
    assert json.loads(run(*words, "--json").stdout)["sources"][0]["counted"] is False
    assert not (tmp_path / "out").exists()
    settings.setenv("MP_API_KEY", "short")
    assert "has 5 characters" in run(*words).stderr


def test_it_says_what_would_be_fetched_and_writes_nothing(planned, project, documents, tmp_path):
    (source,) = planned["sources"]
    assert source["name"] == "mp:hull=..1"
    assert source["to_fetch"]["documents"] == source["structures"] == source["labelled"] == len(documents)
    assert source["atoms"] == sum(document["nsites"] for document in documents)
    assert source["counted"]
    assert len(project.searches) == 1
    assert planned["model"]["url"].endswith("mace-mpa-0-medium.model")
    assert planned["model"]["size_bytes"] == find_weights("medium-mpa-0").path.stat().st_size
    assert list(tmp_path.iterdir()) == []
    assert any("Which of these compositions medium-mpa-0 was trained on" in note for note in planned["notes"])


def test_disk_that_is_planned_is_disk_that_is_used(planned, project, documents, settings, tmp_path):
    stages = {stage["stage"]: stage for stage in planned["stages"]}
    atoms = planned["sources"][0]["atoms"]
    assert stages["features"]["disk_bytes"] == 4 * 144 * atoms + (8 * 144 + 500) * len(documents)
    assert not any(stage["done"] for stage in planned["stages"])
    assert planned["needed_bytes"] == sum(stage["disk_bytes"] for stage in planned["stages"])
    assert planned["enough"] == (planned["needed_bytes"] <= planned["free_bytes"])
    config = BuildConfig(
        source="mp:hull=1", until="features", extract=ExtractSettings(shard_rows=20, workers=1)
    )
    with serving(project) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        made = build(tmp_path / "out", config)
    assert made.head is None
    size = sum(shard.stat().st_size for shard in FeatureStore(tmp_path / "out" / "features").shards())
    of_this_model = stages["features"]["disk_bytes"] - (144 - 24) * (
        4 * atoms + 8 * len(documents)
    )  # 24 features
    assert of_this_model == pytest.approx(size, rel=0.25)
    entries = (tmp_path / "out" / "entries.jsonl.gz").stat().st_size
    assert entries < stages["download"]["disk_bytes"] < 3 * entries  # and the pages while it runs
    again = plan(tmp_path / "out", config)
    assert [stage.done for stage in again.stages] == [True, True, False, False]
    assert again.stages[1].disk_bytes == 0


def test_without_the_weights_nothing_is_fetched(project, run, settings, labelled_file, tmp_path):
    settings.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with serving(project) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        done = run("build", tmp_path / "out", *ASKED[:-1], "--with", labelled_file)
    assert done.exit_code == 0, done.output
    screen = " ".join(done.stdout.split())
    assert f"{labelled_file}: 200 structures, 200 with a label" in screen
    assert "79,462,305 bytes, mace fetches it from https://github.com/ACEsuit/mace-mp" in screen
    assert "mace downloads them on the first run" in " ".join(done.stderr.split())
    assert not (tmp_path / "empty").exists()


def test_a_page_stands_for_the_rest(settings, tmp_path):
    many = [document_of(entry(f"mp-{k}", "Fe-Li-O", 1 + (k > 500))) for k in range(1, 601)]
    settings.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with serving(Project(many)) as endpoint:
        settings.setenv("MP_API_ENDPOINT", endpoint)
        page = plan(tmp_path / "out", BuildConfig(source="mp:Li-Fe-O"))
        whole = plan(tmp_path / "out", BuildConfig(source="mp:all"))
    (source,) = page.sources
    assert (source.structures, source.atoms, source.counted) == (
        600,
        1800.0,
        False,
    )  # the first 500 have 3 atoms
    assert page.as_dict()["sources"][0]["to_fetch"]["first_page"] == 500
    assert "may not be typical" in " ".join(page.notes)
    assert whole.sources[0].structures == 600
    assert "the client's bulk path" in " ".join(whole.notes)


def test_files_are_counted(labelled_crystals, tmp_path, tiny_model_folder):
    write(tmp_path / "some.extxyz", labelled_crystals[:30], format="extxyz")
    config = BuildConfig(source=str(tmp_path / "some.extxyz"), model=str(tiny_model_folder))
    (size,) = plan(tmp_path / "out", config).sources
    assert (size.structures, size.labelled, size.counted) == (30, 30, True)
    assert size.atoms == sum(len(atoms) for atoms in labelled_crystals[:30])


def test_sizes_are_written_as_estimates():
    assert [size_text(n) for n in (None, 20, 7.59e4, 1.5e9)] == ["not known", "20 B", "75.9 kB", "1.5 GB"]


def test_a_full_disk_is_said(tmp_path):
    weights = WeightsFile("mini", tmp_path, True, None, 1)
    stages = (Estimate("features", False, 10, ""), Estimate("fit", False, 0, ""))
    full, free = (Plan(tmp_path, (), weights, stages, n, ()) for n in (9, 10))
    assert (full.enough, free.enough) == (False, True)


def test_what_build_would_refuse_is_refused(project, run, settings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    refused = run("build", tmp_path / "out", *ASKED)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "holds thesis.tex" in refused.stderr
    settings.setenv("MP_API_KEY", "")
    settings.setenv("PMG_MAPI_KEY", "")
    refused = run("build", tmp_path / "new", "--source", "mp:hull=1")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "there is no key of the Materials Project" in refused.stderr
    assert not (tmp_path / "new").exists()
    assert not project.searches
    assert KEY not in refused.stderr
