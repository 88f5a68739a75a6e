"""A Materials Project of our own, and downloads from it."""

from __future__ import annotations

import pytest

from helpers.mp_server import KEY, QUICK, Project, library, serving
from mace_bounds.materials_project import Connection, download


@pytest.fixture(scope="module")
def documents():
    return library()


@pytest.fixture
def project(documents):
    return Project(list(documents))


@pytest.fixture
def fetch(project, tmp_path):
    """Download from the project: returns the result; every call is a new run."""

    def call(query="mp:Li-Fe-O", name="out", **options):
        with serving(project) as endpoint:
            settings = {"api_key": KEY, "page_size": 7, **QUICK, **options}
            callbacks = {key: settings.pop(key) for key in ("note", "progress") if key in settings}
            return download(query, tmp_path / name, Connection(endpoint=endpoint, **settings), **callbacks)

    return call


@pytest.fixture(scope="module")
def undisturbed(documents, tmp_path_factory):
    with serving(Project(list(documents))) as endpoint:
        path = tmp_path_factory.mktemp("mp") / "out"
        return download("mp:Li-Fe-O", path, Connection(KEY, endpoint, page_size=7)).path.read_bytes()
