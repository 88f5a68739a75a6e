"""Tools for assistants: the same rows, and errors with remedies."""

import asyncio

import pytest

from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig

mcp = pytest.importorskip("mcp", reason="the SDK of the Model Context Protocol is not installed")


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
    assert {tool.name for tool in tools} == {"score", "explain", "heads", "flags"}
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
