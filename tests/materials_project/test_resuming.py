"""Downloads that stop and go on: nothing lost, nothing twice, the same bytes."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from helpers import forked
from helpers.mp_server import KEY, QUICK, document_of, entries_of, entry, ids, serving
from mace_bounds.errors import DatabaseChanged, SourceError, StoreError
from mace_bounds.materials_project import Connection, download


@pytest.mark.parametrize("fault", ["503", "cut", "short", "reset", "429:0"])
def test_trouble_without_end_is_one_sentence_and_the_pages_stay(fetch, project, undisturbed, fault):
    project.faults = ["", *[fault] * 4]
    with pytest.raises(SourceError, match=r"^http[^\n]* no usable answer in 4 tries [^\n]*kept\)\.$"):
        fetch()
    asked = len(project.searches)
    assert fetch().path.read_bytes() == undisturbed
    assert len(project.searches) - asked == 2  # the first page had come already


def test_the_time_of_a_resumed_query_is_that_of_its_first_page(fetch, project, tmp_path):
    project.faults = ["", *["500"] * 4]
    with pytest.raises(SourceError):
        fetch()
    frozen = tmp_path / ".out.jsonl.gz.parts" / "query.json"
    settings = json.loads(frozen.read_text())
    frozen.write_text(json.dumps({**settings, "started": "2025-09-26T00:00:00+00:00"}))
    summary = fetch().summary
    assert summary["started"] == "2025-09-26T00:00:00+00:00"
    assert summary["finished"] >= settings["started"]
    assert len(project.searches) == 5 + 2  # the first page was taken up


def test_a_server_that_dies_in_the_middle(project, tmp_path, undisturbed):
    project.faults = ["", "die"]
    with serving(project) as endpoint, pytest.raises(SourceError, match="in 4 tries"):
        download("mp:Li-Fe-O", tmp_path / "out", Connection(KEY, endpoint, page_size=7, **QUICK))
    with serving(project) as endpoint:
        result = download("mp:Li-Fe-O", tmp_path / "out", Connection(KEY, endpoint, page_size=7, **QUICK))
    assert result.path.read_bytes() == undisturbed
    skips = [search.get("_skip", "0") for search in project.searches]
    assert Counter(skips) == {"0": 1, "7": 2, "14": 1}


def test_a_finished_download_is_not_asked_for_again_and_not_overwritten(fetch, project):
    first = fetch()
    n = len(project.requests)
    again = fetch()
    assert (again.fresh, again.summary) == (False, first.summary)
    assert len(project.requests) == n
    with pytest.raises(SourceError, match=r"is not a finished download of .*; delete it"):
        fetch("mp:NaCl")
    first.path.write_bytes(first.path.read_bytes()[:-3])
    with pytest.raises(SourceError, match=r"is not a finished download of .*; delete it"):
        fetch()
    with pytest.raises(SourceError, match="is a folder; name a file in it"):
        fetch(name=".")


def test_pages_of_another_query_or_version_are_not_mixed(fetch, project):
    project.faults = ["", *["500"] * 4]
    with pytest.raises(SourceError):
        fetch()
    with pytest.raises(SourceError, match=r"was begun for mp:chemsys=Fe-Li-O, not for mp:formula=NaCl"):
        fetch("mp:NaCl")
    project.db_version, told = "2026.01.01", []
    asked = len(project.searches)
    result = fetch(note=told.append)
    assert len(project.searches) - asked == 3
    assert "fetched anew from version 2026.01.01" in told[0]
    assert ids(result.path) == [f"mp-{k}" for k in range(1, 21)]
    assert {one["data"]["database_version"] for one in entries_of(result.path)} == {"2026.01.01"}


def grow(project):
    if len(project.searches) == 2:
        project.documents.insert(0, document_of(entry("mp-900", "Fe-Li-O", run_type="GGA+U")))


def swap(project):
    if len(project.searches) == 2:  # the same number, in another order: mp-1 comes again
        project.documents[0], project.documents[8] = project.documents[8], project.documents[0]


def renew(project):
    if len(project.searches) == 2:
        project.db_version = "2026.01.01"


@pytest.mark.parametrize("change", [grow, swap, renew])
def test_a_database_that_changes_meanwhile_is_noticed(fetch, project, change):
    project.on_request = change
    with pytest.raises(DatabaseChanged, match="run the same command again"):
        fetch()
    project.on_request = None
    found = ids(fetch().path)
    assert len(found) == len(set(found)) == 20 + (change is grow)


def test_damaged_pages_are_fetched_again(fetch, project, tmp_path, undisturbed):
    project.faults = ["", "", *["500"] * 4]
    with pytest.raises(SourceError):
        fetch()
    pages = sorted((tmp_path / ".out.jsonl.gz.parts").glob("page-*"))
    assert len(pages) == 2
    pages[0].write_bytes(pages[0].read_bytes()[:100])
    pages[1].write_bytes(gzip.compress(b"{}"))
    assert fetch().path.read_bytes() == undisturbed


def test_one_download_at_a_time(project, tmp_path):
    caught = []

    def second(project):
        if len(project.searches) == 1 and not caught:
            with pytest.raises(StoreError, match=r"another run is writing into .*process \d+ on") as error:
                download("mp:Li-Fe-O", tmp_path / "out", Connection(KEY, "http://127.0.0.1:9/"))
            caught.append(error)

    project.on_request = second
    with serving(project) as endpoint:
        download("mp:Li-Fe-O", tmp_path / "out", Connection(KEY, endpoint, page_size=7, **QUICK))
    assert caught


KILLED = """
import os, signal, sys
from pathlib import Path
from mace_bounds.materials_project import Connection, download

folder, endpoint, key = Path(sys.argv[1]), *sys.argv[2:4]

def run(name):
    download("mp:hull=1", folder / name, Connection(key, endpoint, page_size=4))

run("calm")  # and imports what all runs need
parts, kills = folder / ".killed.jsonl.gz.parts", 0
for pages in range(0, 11, 2):
    child = os.fork()
    if child == 0:
        run("killed")
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if len(list(parts.glob("page-*"))) >= pages:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            break
run("killed")
print(kills)
"""


@pytest.mark.slow
def test_killed_at_many_moments_the_bytes_are_the_same(project, tmp_path):
    with serving(project) as endpoint:
        told = forked.run(forked.python, KILLED, tmp_path, endpoint, KEY)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) >= 5
    calm, calm_summary, killed, killed_summary = sorted(tmp_path.iterdir())
    assert calm.read_bytes() == killed.read_bytes()
    assert killed_summary.name == "killed.jsonl.gz.summary.json"
    same = [json.loads(path.read_text())["counts"] for path in (calm_summary, killed_summary)]
    assert same[0] == same[1]
