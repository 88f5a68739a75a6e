"""Running the command line in this process and outside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

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

    def call(*arguments, **options):
        script = "from mace_bounds.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})},
            check=False,
            **options,
        )

    return call
