"""The file of entries is whole or not there, and the counts are those of what is in it."""

from __future__ import annotations

import gzip
import json

import pytest

from helpers.mp_server import entry
from mace_bounds.materials_project.entries_file import LISTED, Tally, entries_file
from mace_bounds.structures import REFUSED


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_equal_entries_give_equal_bytes(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        with entries_file(tmp_path / folder / name) as write:
            write({"b": 1, "a": "é"})
            write({"c": None, 3: [1.5, -2e-7]})
    content = (tmp_path / "one" / name).read_bytes()
    assert content == (tmp_path / "two" / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"b": 1, "a": "é"},
        {"c": None, "3": [1.5, -2e-7]},
    ]


def test_an_error_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"before")

    def fail():
        with entries_file(path) as write:
            write({"a": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_the_tally_counts_what_it_keeps():
    tally = Tally((None, 4), frozenset({"mp-1", "mp-77", "mp-8"}))
    for k in range(1, 61):
        one = entry(f"mp-{k}", "Cl-Na", 3 if k == 60 else 1)
        if k <= 55:
            one["data"][REFUSED] = "because"
        assert tally.keeps(one) == (k != 60)
    summary = tally.summary()
    assert summary["counts"] == {
        "documents": 60, "outside_nsites": 1, "structures": 59, "labelled": 4, "label_refused": 55, "not_found": 1
    }  # fmt: skip
    assert summary["not_found"] == ["mp-77"]
    assert len(summary["label_refused"]) == LISTED
    assert summary["run_types"] == {"GGA": 59}
    assert summary["licences"] == {"not stated": 59}
