"""A service that listens: asked over a socket by the client, and ended by a signal."""

import json
import logging

import pandas as pd
import pytest
from typer.testing import CliRunner

from mace_bounds.cli import app as command_line
from mace_bounds.client import Client
from mace_bounds.errors import ServiceError
from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig, serve
from mace_bounds.service.serving import _Lines
from mace_bounds.tables import to_json


def test_the_client_gives_the_table_of_the_predictor(address, mini):
    paths = example_files("NaCl", "broken", "Si")
    with Client(address) as asking:
        table = asking.score(paths)
        assert asking.explain(paths[0])["verdict"] == mini.explain(paths[0]).verdict
        assert [head["name"] for head in asking.heads()] == ["mini"]
        with pytest.raises(ServiceError, match="Send one"):
            asking.explain(paths)
    pd.testing.assert_frame_equal(table, mini.predict(paths))


def test_score_asks_a_service(address, mini):
    """The command line has the rows of the service in every format; what a service has no use for is refused."""
    paths = [str(path) for path in example_files("NaCl", "broken")]

    def run(*words):
        return CliRunner().invoke(command_line, ["score", *words])

    said = run(*paths, "--server", address, "--format", "json", "--level", "90")
    assert said.exit_code == 0
    assert json.loads(said.stdout) == json.loads(to_json(mini.predict(paths, 0.9)))
    table = run(paths[0], "--server", address)
    assert "Model mini (183c0600bac5), head mini." in " ".join(table.stdout.split())
    xyz = run(*paths, "--server", address, "--format", "extxyz")
    assert xyz.stdout.count("mace_bounds_energy_lower_ev") == 1
    assert run(paths[1], "--server", address).exit_code == 1
    assert run(paths[0], "--server", address, "--model", "mini").exit_code == 2
    wrong = run(paths[0], "--server", address, "--head", "other")
    assert (wrong.exit_code, "no head of the name 'other'" in wrong.stderr) == (2, True)


def test_a_port_that_is_taken_is_said(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(ServiceError, match="cannot be listened on"):
        serve(ServiceConfig(port=port))


def test_lines_of_the_log_are_json():
    record = logging.LogRecord("x", logging.INFO, "", 0, 'he said "%s"', ("\n",), None)
    assert json.loads(_Lines().format(record))["message"] == 'he said "\n"'
    record = logging.LogRecord("x", logging.INFO, "", 0, '{"event": "request"}', (), None)
    line = json.loads(_Lines().format(record))
    assert (line["event"], line["level"]) == ("request", "info")
