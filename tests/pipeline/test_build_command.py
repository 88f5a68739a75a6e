"""``mace-bounds build`` from the loopback Materials Project to a head, undisturbed and killed."""

from __future__ import annotations

import json
import signal

import pytest
from typer.testing import CliRunner

from helpers import forked
from helpers.mp_server import KEY, Project, serving
from helpers.store_bytes import digests
from mace_bounds.bounds import list_heads
from mace_bounds.calibration import load_head
from mace_bounds.cli import app
from mace_bounds.features import FeatureStore

pytestmark = pytest.mark.slow

SMALL = ("--workers", "1", "--shard-rows", "8", "--no-plots", "--no-ellipsoid", "--n-folds", "3")
QUERY = ("--source", "mp:hull=1", *SMALL)
SAME = (
    "head/head.safetensors",
    "head/config.json",
    "head/README.md",
    "audit/bounds.parquet",
    "audit/bounds.csv",
)


@pytest.fixture(scope="module")
def whole(cache, documents, tmp_path_factory):
    """An undisturbed run: its folder, what it said, and what it asked the server."""
    project, out = Project(list(documents)), tmp_path_factory.mktemp("whole") / "out"
    with serving(project) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("MP_API_KEY", KEY)
        patch.setenv("MP_API_ENDPOINT", endpoint)
        done = CliRunner().invoke(app, ["build", str(out), *QUERY])
    assert done.exit_code == 0, done.output
    return out, done, len(project.searches)


def contents(out):
    return {name: (out / name).read_bytes() for name in SAME} | digests(out / "features")


def test_the_folder_holds_what_every_stage_left(whole, documents):
    out, done, searched = whole
    assert searched == 1
    state = json.loads((out / "build.json").read_text())
    assert list(state["stages"]) == ["download", "features", "fit", "audit"]
    assert state["config"]["fit"]["sources"] == ["mp:hull=..1"]
    assert state["config"]["features"]["model"] == "medium-mpa-0"
    assert state["stages"]["download"]["made"]["sources"][0]["counts"]["labelled"] == len(documents)
    head, store = load_head(out / "head"), FeatureStore(out / "features")
    assert head.identity.model == store.manifest.model == "medium-mpa-0"
    assert head.identity.model_digest == state["stages"]["features"]["made"]["model"]["digest"]
    assert (
        state["stages"]["features"]["made"]["weights_sha256"]
        == (state["stages"]["download"]["made"]["weights_sha256"])
    )
    assert len(head.identity.columns) == 8 + 16  # scalars of both readouts
    assert store.manifest.atoms
    assert store.manifest.symmetry
    assert head.novelty.wants_atoms
    assert sum(head.provenance["rows"].values()) == len(documents)
    assert json.loads((out / "audit" / "summary.json").read_text())["counts"]["scored"] == len(documents)
    assert (out / "audit" / "report.html").is_file()
    assert f"mace-bounds score FILE --model medium-mpa-0 --head {out / 'head'}" in done.stdout


def test_screen_card_and_report_say_that_the_training_is_not_known(whole):
    out, done, _ = whole
    screen = " ".join(done.stdout.split())
    assert "it was trained on MPtrj, which is the Materials Project itself, and sAlex" in screen
    assert "too narrow for new crystals" in screen
    card = (out / "head" / "README.md").read_text()
    assert "which of them the model's own training has seen is not known here" in card
    assert "trained on MPtrj, which is the Materials Project itself" in card
    assert "version 2025.09.25 (entries.jsonl.gz)" in card
    assert "CC BY 4.0" in card
    summary = json.loads((out / "audit" / "summary.json").read_text())
    assert summary["measured_on"]["training_known"] is False
    assert "nothing was trained on" not in summary["measured_on"]["sentence"]
    assert "Not a measure for new crystals." in (out / "audit" / "report.html").read_text()


def test_what_is_done_is_not_done_again(whole, run, settings):
    out, _, _ = whole
    settings.delenv("MP_API_KEY")  # nor asked for
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = run("build", out, *QUERY, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["stages"] == json.loads((out / "build.json").read_text())["stages"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_killed_in_the_features_and_in_the_fit_it_leaves_the_same_bytes(
    whole, cache, documents, run, settings, tmp_path
):
    project, out = Project(list(documents)), tmp_path / "out"
    project.faults = ["cut", "short"]
    with serving(project) as endpoint:
        environment = {"XDG_CACHE_HOME": str(cache), "MP_API_KEY": KEY, "MP_API_ENDPOINT": endpoint}

        def killed_when(there):
            with forked.start(forked.command, "build", out, *QUERY, env=environment) as child:
                child.wait_until(there)
                child.send_signal(signal.SIGKILL)
                assert child.wait() == -signal.SIGKILL

        killed_when(lambda: len(list((out / "features").glob("shard-*.parquet"))) >= 2)
        assert not FeatureStore(out / "features").manifest.complete
        killed_when(lambda: "features" in json.loads((out / "build.json").read_text())["stages"])
        assert not (out / "audit").exists()
        settings.setenv("MP_API_ENDPOINT", endpoint)
        done = run("build", out, *QUERY)
    assert done.exit_code == 0, done.output
    assert contents(out) == contents(whole[0])
    assert len(project.searches) == 3  # two of them were broken; never again


def test_parts_that_an_array_of_jobs_has_left_are_taken_up(whole, run, tmp_path):
    entries, out = whole[0] / "entries.jsonl.gz", tmp_path / "out"
    line = ["--model", "medium-mpa-0", "--shard-rows", 8, "--workers", 1]
    for part in ("1/2", "2/2"):
        done = run("features", entries, out / "features", *line, "--atoms", "--symmetry", "--shard", part)
        assert done.exit_code == 0, done.output
    assert run("merge", out / "features").exit_code == 0
    shards = {path: path.stat().st_ino for path in (out / "features").glob("shard-*.parquet")}
    done = run("build", out, "--source", entries, *QUERY[2:], "--until", "features")
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_ino for path in (out / "features").glob("shard-*.parquet")} == shards
    assert digests(out / "features") == digests(whole[0] / "features")
    again = run("build", tmp_path / "other", "--source", out / "features", *QUERY[2:], "--until", "features")
    assert again.exit_code == 0, again.output
    assert not (tmp_path / "other" / "features").exists()
    plain = tmp_path / "plain"
    assert run("features", entries, plain / "features", *line, "--shard", "1/2").exit_code == 0
    done = run("build", plain, "--source", entries, *QUERY[2:], "--until", "features")
    assert done.exit_code == 0, done.output
    assert "will grade structures but not single atoms" in done.stderr
    assert FeatureStore(plain / "features").manifest.complete


def test_a_head_can_be_installed(whole, run, settings, tmp_path):
    settings.setenv("MACE_BOUNDS_HEADS", str(tmp_path / "heads"))
    for _ in range(2):
        done = run("build", whole[0], *QUERY, "--install", "mpa")
        assert done.exit_code == 0, done.output
    (card,) = [card for card in list_heads() if not card.shipped]
    assert (card.name, card.model) == ("mpa", "medium-mpa-0")
    scored = run("score", whole[0] / "entries.jsonl.gz", "--model", "medium-mpa-0", "--format", "csv")
    assert scored.exit_code == 0, scored.output
    assert len(scored.stdout.splitlines()) == 1 + sum(card.rows.values())
    for name, why in (("../mpa", "a plain name"), ("taken", "is another head")):
        (tmp_path / "heads" / "taken").mkdir(exist_ok=True)
        refused = run("build", whole[0], *QUERY, "--install", name)
        assert refused.exit_code == 2
        assert why in refused.stderr
