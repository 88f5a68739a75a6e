"""Running the command line in this process and outside."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from helpers import forked
from mace_bounds.cli import app


@pytest.fixture(scope="session")
def crystal_file(labelled_crystals, tmp_path_factory):
    """One CIF written by ase."""
    from ase.io import write

    path = tmp_path_factory.mktemp("cif") / "one.cif"
    write(path, labelled_crystals[0])
    return path


@pytest.fixture(scope="session")
def pair(tiny_model_folder, tiny_fit):
    """Options that name the tiny model and its head."""
    return ["--model", str(tiny_model_folder), "--head", str(tiny_fit.folder)]


@pytest.fixture(scope="session")
def run():
    """Run a command in this process; returns click's result."""
    return lambda *arguments, **options: CliRunner().invoke(app, [str(a) for a in arguments], **options)


@pytest.fixture(scope="session")
def shell():
    """Run a command in a process of its own."""
    return lambda *words, **options: forked.run(forked.command, *words, **options)
