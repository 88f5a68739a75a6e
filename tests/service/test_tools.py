"""Tools for assistants: the same rows, and errors with remedies."""

import asyncio
import json

import pytest

from mace_bounds.bounds import HullSettings
from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig
from mace_bounds.structures import Upload
from mace_bounds.tables import to_json

mcp = pytest.importorskip("mcp", reason="the SDK of the Model Context Protocol is not installed")


STRETCHED = "NaCl\n1.0\n0 2.9 2.9\n2.9 0 2.9\n2.9 2.9 0\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.fixture(scope="module")
def called(predictors):
    """Call tools of a server in this process, one after the other."""
    from mace_bounds.service import mcp_server

    def call(*calls):
        async def run():
            async with mcp.Client(mcp_server(ServiceConfig(), predictors=predictors)) as client:
                listed = (await client.list_tools()).tools
                return listed, [await client.call_tool(name, given) for name, given in calls]

        return asyncio.run(run())

    return call


def test_tools_give_what_the_predictor_gives(called, mini):
    path, broken = example_files("NaCl", "broken")
    content = path.read_text()
    tools, (scored, explained, listed, refused, unknown) = called(
        ("score", {"content": content, "name": "NaCl.cif", "level": 0.9}),
        ("explain", {"content": content}),
        ("heads", {}),
        ("score", {"content": broken.read_text()}),
        ("score", {"content": content, "head": "/etc/passwd"}),
    )
    verbs = {"score", "explain", "differences", "hull", "models", "heads", "flags"}  # of /v1 of the service
    assert {tool.name for tool in tools} == verbs
    assert all(tool.description for tool in tools)
    (row,) = scored.structured_content["rows"]
    wanted = mini.predict(path, 0.9).iloc[0]
    assert (row["id"], row["energy_lower_ev"]) == ("NaCl.cif", wanted["energy_lower_ev"])
    assert explained.structured_content["verdict"] == mini.explain(path).verdict
    assert [head["name"] for head in listed.structured_content["heads"]] == ["mini"]
    for failed, said in (
        (refused, "remove duplicate or overlapping atoms"),
        (unknown, "GET /v1/heads lists them"),
    ):
        assert failed.is_error
        assert said in failed.content[0].text


def test_decisions_are_those_of_the_predictor(called, mini):
    (salt,) = example_files("NaCl")
    files = {"a.cif": salt.read_text(), "b.vasp": STRETCHED}
    _, (lower, reacts, above, refused, models) = called(
        ("differences", {"files": files, "level": 0.9}),
        ("differences", {"files": files, "of": "reactions", "reactions": ["a.cif -> b.vasp"]}),
        ("hull", {"files": files, "phases": {"NaCl.cif": salt.read_text()}, "energies": "model"}),
        ("differences", {"files": files, "of": "reactions"}),
        ("models", {}),
    )
    uploads = [Upload(name, text.encode()) for name, text in files.items()]
    wanted = mini.differences(uploads, "polymorphs", level=0.9)
    assert lower.structured_content["rows"] == json.loads(to_json(wanted))
    wanted = mini.differences(uploads, ["a.cif -> b.vasp"])
    assert reacts.structured_content["rows"] == json.loads(to_json(wanted))
    wanted = mini.hull(uploads, [str(salt)], HullSettings(energies="model"))
    assert above.structured_content["rows"] == json.loads(to_json(wanted.table))
    assert above.structured_content["notes"] == list(wanted.notes)
    assert refused.is_error
    assert "Give both, or neither" in refused.content[0].text
    assert models.structured_content["models"][0]["name"] == "mini"
