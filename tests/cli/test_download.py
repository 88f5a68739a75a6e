"""``mace-bounds download`` in a process of its own, against the loopback Materials Project."""

from __future__ import annotations

import json
import signal

import pytest
from typer.testing import CliRunner

from helpers import forked
from helpers.mp_server import KEY, Project, document_of, entry, library, serving
from mace_bounds.cli import app


@pytest.fixture
def project():
    return Project(library())


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("MP_API_KEY", KEY)

    def call(*arguments):
        return CliRunner().invoke(app, ["download", *map(str, arguments)])

    return call


def test_download_then_again(project, run, tmp_path):
    with serving(project) as endpoint:
        result = run("mp:Li-Fe-O", tmp_path / "lfo", "--endpoint", endpoint)
        assert result.exit_code == 0, result.output
        assert "20 structures, 20 with a label, of mp:chemsys=Fe-Li-O in" in result.stdout
        assert "Materials Project 2025.09.25." in result.stdout
        assert "next: mace-bounds audit" in result.stderr
        n = len(project.requests)
        result = run("mp:Li-Fe-O", tmp_path / "lfo", "--endpoint", endpoint, "--json")
        assert json.loads(result.stdout)["counts"]["labelled"] == 20
        assert len(project.requests) == n
        result = run("mp:O-Yb,hull=1", tmp_path / "yb.jsonl", "--endpoint", endpoint)
        assert "2 flagged yb_3_potential" in result.stderr
        assert len((tmp_path / "yb.jsonl").read_text().splitlines()) == 2


def test_exit_codes(project, run, tmp_path, monkeypatch):
    with serving(project) as endpoint:
        result = run("mp:Xx", tmp_path / "x", "--endpoint", endpoint)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: 'Xx' is no chemical formula; ")
        result = run("mp:Li-Fe-O", tmp_path / "x", "--endpoint", endpoint, "--api-key", "0" * 32)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "get yours at https://" in result.stderr
        monkeypatch.setenv("MP_API_KEY", "")
        monkeypatch.setenv("PMG_MAPI_KEY", "")
        wrong = document_of(entry("mp-5", "Cl-K"))
        wrong["entries"]["GGA"]["energy"] -= 1.0
        project.documents = [wrong]
        result = run("mp:K-Cl", tmp_path / "refused", "--endpoint", endpoint, "--api-key", KEY)
        assert result.exit_code == 1
        assert "1 structures, 0 with a label" in result.stdout
        assert "mp-5: the entry's energy is -4.5003 eV/atom and the document's -4.0003" in result.stderr


@pytest.mark.slow
def test_interrupted_then_resumed(project, tmp_path):
    project.faults = ["", "slow:9"]
    with serving(project) as endpoint:
        paged = (forked.python, PAGED, "download", "mp:Li-Fe-O", tmp_path / "out")
        environment = {"MP_API_KEY": KEY, "MP_API_ENDPOINT": endpoint}
        with forked.start(*paged, env=environment) as child:
            child.wait_until(lambda: len(project.searches) >= 2)
            child.send_signal(signal.SIGINT)
            code = child.wait(30)
            assert code == 130, child.stderr
            assert child.stderr.splitlines()[-1] == "stopped; run the same command again to resume"
        asked = len(project.searches)
        done = forked.run(*paged, env=environment)
        assert done.returncode == 0, done.stderr
        assert "20 structures, 20 with a label" in done.stdout
        assert len(project.searches) == asked + 2  # the first page was there


@pytest.mark.slow
def test_features_take_a_query(project, tmp_path, monkeypatch, tiny_model_folder):
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MACE_BOUNDS_CACHE", str(tmp_path / "cache"))
    with serving(project) as endpoint:
        monkeypatch.setenv("MP_API_ENDPOINT", endpoint)
        command = ["features", "mp:NaCl", str(tmp_path / "store"), "--model", str(tiny_model_folder)]
        result = CliRunner().invoke(app, [*command, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "7 structures with" in result.stdout
    assert "downloading it into" in result.stderr


PAGED = """
import functools
import mace_bounds.materials_project as project
project.Connection = functools.partial(project.Connection, page_size=7)
from mace_bounds.cli import main
main()
"""
