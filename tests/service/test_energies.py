"""Energies that come with the structures, for heads that bound another model's: the rows of the predictor."""

import io
import json
import time

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write

from helpers.asking import running
from mace_bounds.bounds import BoundsPredictor
from mace_bounds.examples import example_files
from mace_bounds.service import Problem, ServiceConfig, create_app
from mace_bounds.service.energies import GivenTotals, split_json
from mace_bounds.service.schemas import ASE_EXAMPLE
from mace_bounds.tables import to_json

HEAD = "mace-mpa-0-published"
ENERGIES = {"NaCl.cif": -27.1, "Si.cif": -43.2}


@pytest.fixture(scope="module")
def client(both, tmp_path_factory):
    config = ServiceConfig(heads=("mini", HEAD), state=tmp_path_factory.mktemp("state"), window_ms=50)
    with running(create_app(config, both)) as client:
        yield client.wait_ready()


@pytest.fixture(scope="module")
def published():
    return BoundsPredictor(None, HEAD)


def files(*stems):
    return [("files", (path.name, path.read_bytes())) for path in example_files(*stems)]


def table(kind="csv"):
    made = pd.DataFrame({"id": list(ENERGIES), "total": list(ENERGIES.values())})
    return (
        "predictions",
        (f"e.{kind}", (made.to_csv(index=False) if kind == "csv" else made.to_json()).encode()),
    )


GIVEN = {"head": HEAD, "energy_column": "total"}


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_table_of_energies(client, published, kind):
    paths = example_files("NaCl", "Si", "Cu")
    wanted = published.predict(paths, energies=ENERGIES)
    answer = client.post("/v1/score", files=[*files("NaCl", "Si", "Cu"), table(kind)], params=GIVEN)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text) == json.loads(to_json(wanted))
    assert [row["energy_model_ev"] for row in answer.json()] == [-27.1, -43.2, None]
    assert "no energy was given" in answer.json()[2]["reason"]


def test_energies_in_json_in_order_or_by_id(client, published):
    body = {"structures": [ASE_EXAMPLE, ASE_EXAMPLE], "energies": [-6.7, None]}
    answer = client.post("/v1/score", json=body, params={"head": HEAD}).json()
    assert [row["energy_model_ev"] for row in answer] == [-6.7, None]
    by_id = {"structures": ASE_EXAMPLE, "energies": {"structure": -6.7}}
    (row,) = client.post("/v1/score", json=by_id, params={"head": HEAD}).json()
    wanted = published.predict(bulk("NaCl", "rocksalt", 5.64), energies=[-6.7]).iloc[0]
    assert row["upper_mev_per_atom"] == pytest.approx(wanted["upper_mev_per_atom"], abs=1e-6)
    said = client.post("/v1/explain", json=by_id, params={"head": HEAD})
    assert said.json()["bounds"]["energy_model_ev"] == -6.7


def test_requests_at_once_keep_their_own_energies(client):
    asked = [({"structures": ASE_EXAMPLE, "energies": [-6.7 - 0.01 * k]}) for k in range(4)]
    answers = client.together(*(("/v1/score", {"json": body, "params": {"head": HEAD}}) for body in asked))
    assert [a.json()[0]["energy_model_ev"] for a in answers] == [body["energies"][0] for body in asked]
    links = {answer.headers["x-result"] for answer in answers}
    assert len(links) == 4


@pytest.mark.parametrize(
    "parts, params, said",
    [
        ([], {"head": HEAD}, "which have to be given"),
        ([table()], {"head": HEAD}, "belong together"),
        ([], {"head": HEAD, "energy_column": "total"}, "belong together"),
        ([table()], {"head": HEAD, "energy_column": "none"}, "has no column none"),
        ([table(), table()], GIVEN, "more than once"),
        ([("predictions", ("e.csv", b"\xff\xfe"))], GIVEN, "e.csv"),
        ([table()], {"energy_column": "total"}, "no given ones"),
    ],
)
def test_what_does_not_belong_together(client, parts, params, said):
    answer = client.post("/v1/score", files=[*files("NaCl"), *parts], params=params)
    assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_wrong_energies_in_json(client):
    for energies, said in (([1.0, 2.0], "2 values for 1 structures"), ("x", "neither"), ([-3.3], "eV/atom")):
        body = {"structures": ASE_EXAMPLE, "energies": energies}
        answer = client.post("/v1/score", json=body, params={"head": HEAD})
        assert answer.status_code == 422
        assert said in answer.text or energies == [-3.3]
    with pytest.raises(Problem):
        GivenTotals.from_json(b"{")
    for body in (b'{"energies": [1]}', b'{"energies', b'[{"energies": 1}]'):
        assert split_json(body) == (body, b"")


def test_a_job_with_energies(client, published):
    crystals = [bulk("NaCl", "rocksalt", 5.4 + 0.005 * k) for k in range(70)]
    text = io.StringIO()
    write(text, crystals, format="extxyz")
    energies = {f"many.extxyz#{k}": -6.75 + 0.001 * k for k in range(69)}
    rows = "".join(f"{name},{energy}\n" for name, energy in energies.items())
    form = [("files", ("many.extxyz", text.getvalue().encode())),
            ("predictions", ("e.csv", f"id,total\n{rows}".encode()))]  # fmt: skip
    name = client.post("/v1/jobs", files=form, params=GIVEN).json()["id"]
    while (job := client.get(f"/v1/jobs/{name}").json())["status"] in ("waiting", "running"):
        time.sleep(0.05)
    assert (job["status"], job["failed"]) == ("done", 1)
    answer = client.get(f"/v1/jobs/{name}/result")
    found = pd.read_parquet(io.BytesIO(answer.content))
    assert found["energy_model_ev"].tolist()[:69] == list(energies.values())
    wanted = published.predict(crystals[:69], energies=list(energies.values()))
    for column in ("lower_mev_per_atom", "upper_mev_per_atom", "novelty"):
        assert found[column].to_numpy()[:69] == pytest.approx(wanted[column].to_numpy(), abs=1e-3)
    assert client.post("/v1/jobs", files=form[:1], params={"head": HEAD}).status_code == 422


def test_the_card_says_that_energies_are_needed(client):
    assert {head["name"]: head["needs_energies"] for head in client.get("/v1/heads").json()} == {
        "mini": False,
        HEAD: True,
    }
