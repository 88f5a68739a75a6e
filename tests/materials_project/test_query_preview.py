"""The first page tells how much a query would bring."""

from __future__ import annotations

import pytest

from helpers.mp_server import KEY, QUICK, serving
from mace_bounds.errors import NothingFound
from mace_bounds.materials_project import Connection, preview
from mace_bounds.structures import read


def test_one_page_is_fetched_and_the_rest_counted(project, tmp_path):
    with serving(project) as endpoint:
        connection = Connection(KEY, endpoint, page_size=7, **QUICK)
        seen = preview("mp:Li-Fe-O", tmp_path / "page.jsonl", connection)
        assert len(project.searches) == 1
        with pytest.raises(NothingFound):
            preview("mp:Au-Pt", tmp_path / "none.jsonl", connection)
    assert (seen.documents, seen.page, seen.structures, seen.labelled) == (20, 7, 7, 7)
    assert seen.database_version == project.db_version
    assert len(list(read(seen.file))) == 7
    assert seen.file_bytes == (tmp_path / "page.jsonl").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["page.jsonl"]


def test_every_search_of_a_query_counts(project, tmp_path):
    with serving(project) as endpoint:
        seen = preview(
            "mp:elements=Li,Fe", tmp_path / "page.jsonl", Connection(KEY, endpoint, page_size=3, **QUICK)
        )
    assert seen.documents == 20 + 3 + 6 + 2  # Fe-Li-O, Fe-Li, with P, with P and S
    assert seen.page == 3 + 3 + 3 + 2
