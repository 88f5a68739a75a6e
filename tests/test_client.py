"""The client: the table that the predictor gives here, and the sentences of the service."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor

from mace_bounds.client import Client
from mace_bounds.errors import ServiceError, SourceError
from mace_bounds.examples import example_files

LIMITS = {"bytes": 40_000, "structures": 3}


class Recorded(httpx.MockTransport):
    """A way to a service that answers as it is told, and remembers what it was asked."""

    def __init__(self, *answers):
        self.asked, self.answers = [], list(answers)
        super().__init__(self._answer)

    def _answer(self, request):
        self.asked.append(request)
        if request.url.path == "/v1/limits":
            return httpx.Response(200, json=LIMITS)
        return self.answers.pop(0)


def row(name):
    return {"id": name, "formula": "NaCl", "n_atoms": 2, "energy_model_ev": -6.75, "reason": None}


def client(*answers, **options):
    transport = Recorded(*answers)
    return Client("http://service:1", transport=transport, **options), transport


def test_files_and_objects_go_in_requests_within_limits():
    answers = [httpx.Response(200, json=[row(name)]) for name in "abcd"]
    asking, transport = client(*answers, key="secret")
    atoms = bulk("NaCl", "rocksalt", 5.64)
    table = asking.score(
        [*example_files("NaCl", "Si"), *[atoms] * 4, AseAtomsAdaptor.get_structure(atoms)], level=0.9
    )
    assert table["id"].tolist() == ["a", "b", "c"]
    assert (str(table["n_atoms"].dtype), str(table["energy_model_ev"].dtype)) == ("Int64", "float64")
    _, files, first, second = transport.asked
    assert files.headers["content-type"].startswith("multipart/form-data")
    assert b'filename="NaCl.cif"' in files.content
    assert b'filename="Si.cif"' in files.content
    assert [len(json.loads(request.content)) for request in (first, second)] == [3, 2]
    assert json.loads(second.content)[1]["@class"] == "Structure"
    assert {request.url.params["level"] for request in (files, first, second)} == {"0.9"}
    assert {request.headers["authorization"] for request in transport.asked} == {"Bearer secret"}


def test_a_folder_is_its_files(tmp_path):
    for path in example_files("NaCl", "Si", "Cu", "MgO"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    asking, transport = client(httpx.Response(200, json=[row("a")]), httpx.Response(200, json=[row("b")]))
    assert len(asking.score(tmp_path)) == 2
    assert [request.content.count(b"filename=") for request in transport.asked[1:]] == [3, 1]


def test_a_busy_service_is_asked_again():
    busy = httpx.Response(
        503, headers={"retry-after": "0"}, json={"error": {"sentence": "Busy.", "remedy": "Wait."}}
    )
    asking, transport = client(busy, busy, httpx.Response(200, json=[row("a")]))
    assert len(asking.score(bulk("Cu"))) == 1
    assert len(transport.asked) == 4
    late = httpx.Response(
        503, headers={"retry-after": "30"}, json={"error": {"sentence": "Busy.", "remedy": "Wait."}}
    )
    asking, _ = client(late, patience_s=1.0)
    with pytest.raises(ServiceError, match="Busy; Wait"):
        asking.score(bulk("Cu"))


def test_rows_that_all_have_a_reason_are_rows():
    said = {"error": {"sentence": "No.", "remedy": "Do."}, "rows": [{**row("a"), "reason": "two atoms"}]}
    asking, _ = client(httpx.Response(422, json=said))
    assert asking.score(bulk("Cu"))["reason"].tolist() == ["two atoms"]


@pytest.mark.parametrize(
    "answer, said",
    [
        (
            httpx.Response(401, json={"error": {"sentence": "An API key is wanted.", "remedy": "Send one."}}),
            "wanted; Send",
        ),
        (httpx.Response(502, text="<html>bad gateway</html>"), "answered 502; check the request"),
        (httpx.Response(500, json=[1]), "answered 500"),
    ],
)
def test_problems_are_sentences(answer, said):
    asking, _ = client(answer)
    with pytest.raises(ServiceError, match=said):
        asking.heads()


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(ServiceError, match="no address"):
        Client("file:///etc/passwd")
    with pytest.raises(ServiceError, match=r"does not answer .*mace-bounds serve"):
        Client("http://127.0.0.1:9").heads()
    asking, _ = client()
    for wrong, error in (([], SourceError), (tmp_path / "none.cif", SourceError), ([3], SourceError)):
        with pytest.raises(error):
            asking.score(wrong)


ROOT = Path(__file__).resolve().parents[1]
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import httpx
from mace_bounds.client import Client

row = {{"id": "a", "n_atoms": 2, "energy_model_ev": -6.75, "reason": None}}
limits = {{"bytes": 1e6, "structures": 9}}
answer = lambda request: httpx.Response(200, json=limits if "limits" in str(request.url) else [row])
table = Client("http://service:1", transport=httpx.MockTransport(answer)).score({path!r})
assert table["energy_model_ev"].tolist() == [-6.75]
from typer.testing import CliRunner
from mace_bounds.cli import app
said = CliRunner().invoke(app, ["score", {path!r}, "--server", "http://127.0.0.1:9"])
assert "does not answer" in said.stderr, said
"""


def test_asking_needs_no_more_than_the_documentation_says():
    """Every dependency that the small install leaves out is hidden."""
    text = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (small,) = re.findall(r"^pip install --no-deps mace-bounds\npip install (.*)$", text, re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]}
    of_ase = {"scipy", "matplotlib"}  # which brings them
    hidden = needed - set(small.split()) - of_ase
    assert {"torch", "mace-torch", "pymatgen", "pyarrow", "spglib", "numba"} <= hidden
    names = {{"mace-torch": "mace"}.get(name, name.replace("-", "_")) for name in hidden}
    (path,) = example_files("NaCl")
    code = WITHOUT.format(names=names, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
