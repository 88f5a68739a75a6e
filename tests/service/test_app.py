"""The routes: the answers are those of the command line."""

import io
import json
import shutil
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import read as read_ase
from ase.io import write as write_ase
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner

from helpers.asking import running
from mace_bounds.bounds import HullSettings, table_bytes
from mace_bounds.cli import app as command_line
from mace_bounds.columns import BOUNDS, names
from mace_bounds.examples import example_files
from mace_bounds.service import Problem, ServiceConfig, create_app
from mace_bounds.service.results import Results
from mace_bounds.service.schemas import ASE_EXAMPLE, EXAMPLE
from mace_bounds.service.worker import load_predictors
from mace_bounds.structures import Upload, read
from mace_bounds.tables import to_json

SEVERAL = ("NaCl", "TiO2", "broken", "Si")


def parts(*stems):
    return [("files", (path.name, path.read_bytes())) for path in example_files(*stems)]


@pytest.fixture
def forgetful():
    """A service for which nothing was computed before, beside other crystals: that differs by round-off."""
    config = ServiceConfig(model="mini", cache_bytes=0, window_ms=0)
    with running(create_app(config, load_predictors(config))) as client:
        yield client.wait_ready()


def test_answers_are_those_of_score_to_the_last_byte(forgetful, tmp_path):
    for path in example_files(*SEVERAL):
        shutil.copy(path, tmp_path)
    files = [str(tmp_path / f"{stem}.cif") for stem in SEVERAL]
    said = CliRunner().invoke(command_line, ["score", *files, "--model", "mini", "--format", "json"])
    assert said.exit_code == 0
    answer = forgetful.post("/v1/score", files=parts(*SEVERAL))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == said.stdout_bytes
    rows = answer.json()
    assert [list(row) for row in rows] == [names(list(BOUNDS))] * 4
    assert [row["reason"] is None for row in rows] == [True, True, False, True]


@pytest.mark.parametrize("kind", ["csv", "tsv", "markdown", "parquet", "extxyz", "cif"])
def test_every_format_is_that_of_score(service, mini, salt, kind):
    (path,) = example_files("NaCl")
    structures = list(read(path))
    table = mini.predict(structures)
    answer = service.post("/v1/score", files=salt, params={"format": kind})
    assert answer.content == table_bytes(table, kind, structures)
    if kind == "extxyz":
        (atoms,) = read_ase(io.StringIO(answer.text), ":", format="extxyz")
        assert atoms.get_potential_energy() == pytest.approx(table["energy_model_ev"].iloc[0], abs=1e-6)
    if kind == "csv":
        assert pd.read_csv(io.StringIO(answer.text))["head"].tolist() == ["mini"]


def test_json_of_pymatgen_and_ase(service, mini):
    answer = service.post("/v1/score", json=[EXAMPLE, ASE_EXAMPLE]).json()
    assert [row["id"] for row in answer] == ["structure#0", "structure#1"]
    primitive = bulk("NaCl", "rocksalt", 5.64)
    wanted = mini.predict(primitive)["energy_model_ev"].iloc[0]
    assert [row["energy_model_ev"] for row in answer] == pytest.approx([wanted] * 2, abs=2e-5)
    one = service.post("/v1/score", json=AseAtomsAdaptor.get_structure(primitive).as_dict()).json()
    assert one[0]["id"] == "structure"
    assert one[0]["energy_model_ev"] == pytest.approx(wanted, abs=2e-5)


def test_pasted_text(service, salt):
    answer = service.post("/v1/score", files={"text": (None, salt[0][1][1].decode())}).json()
    assert (answer[0]["id"], answer[0]["formula"]) == ("pasted", "NaCl")


def test_explain_is_that_of_the_predictor(service, mini, salt):
    (path,) = example_files("NaCl")
    answer = service.post("/v1/explain", files=salt, params={"level": "90", "neighbours": 3})
    wanted = mini.explain(str(path), 0.9, n_neighbours=3).to_dict()
    assert answer.json() == json.loads(json.dumps(wanted))
    assert len(answer.json()["neighbours"]) == 3
    graded = answer.json()["atoms"]  # all of them, for the colours of the page
    assert sorted(atom["site"] for atom in graded) == list(range(8))
    assert max(atom["novelty"] for atom in graded) == graded[0]["novelty"]
    two = service.post("/v1/explain", files=parts("NaCl", "Si"))
    assert (two.status_code, "2 structures" in two.text) == (422, True)


def test_levels_and_columns(service, mini, salt):
    (path,) = example_files("NaCl")
    answer = service.post("/v1/score", files=salt, params={"level": "99"})
    assert answer.text == to_json(mini.predict(path, 0.99))
    basic = service.post("/v1/score", files=salt, params={"columns": "basic"}).json()
    assert "gamma" not in basic[0]


@pytest.mark.parametrize(
    "params, said",
    [
        ({"level": "0.5"}, "calibrated for the levels 0.68, 0.9, 0.95, 0.99"),
        ({"level": "x"}, "no level"),
        ({"head": "minl"}, "did you mean 'mini'"),
        ({"head": "/etc/passwd"}, "no head of the name '/etc/passwd'"),
        ({"model": "medium"}, "no parameter 'model'"),
        ({"levle": "0.9"}, "did you mean 'level'"),
        ({"format": "xml"}, "parameter format cannot be used"),
    ],
)
def test_parameters_that_cannot_be_used(service, salt, params, said):
    answer = service.post("/v1/score", files=salt, params=params)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert said in f"{error['sentence']} {error['remedy']}"
    assert error["request_id"] == answer.headers["x-request-id"]


def test_nothing_that_can_be_scored(service):
    answer = service.post("/v1/score", files=parts("broken"))
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert "0.282 Å apart" in error["sentence"]
    assert error["remedy"] == "remove duplicate or overlapping atoms."
    assert [row["id"] for row in answer.json()["rows"]] == ["broken.cif"]


def test_requests_at_once_get_their_own_answers(service, mini):
    stems = ("NaCl", "TiO2", "Si", "Cu", "MgO", "ZnS")
    answers = service.together(*(("/v1/score", {"files": parts(stem)}) for stem in stems))
    for stem, answer in zip(stems, answers, strict=True):
        (row,), (path,) = answer.json(), example_files(stem)
        wanted = mini.predict(path).iloc[0]
        assert row["id"] == f"{stem}.cif"
        for name in ("energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom"):
            assert row[name] == pytest.approx(wanted[name], abs=1e-3), name


def test_labels_of_one_request_do_not_touch_another(service, mini):
    """Energies per atom are no labels, as the whole of a source shows; the good label of another request is kept."""
    crystals = [read_ase(path) for path in example_files()]
    for atoms, energy in zip(crystals, mini.predict(example_files())["energy_model_ev"], strict=True):
        atoms.info["REF_energy"] = energy / len(atoms)
    text = io.StringIO()
    write_ase(text, crystals, format="extxyz")
    wrong = {"files": [("files", ("wrong.extxyz", text.getvalue().encode()))]}
    vasp = {"energy": -6.75, "calculator": "vasp", "calculator_parameters": {"xc": "PBE"}}
    refused, kept = service.together(("/v1/score", wrong), ("/v1/score", {"json": {**ASE_EXAMPLE, **vasp}}))
    assert {row["energy_dft_ev"] for row in refused.json()} == {None}
    assert all("label_refused" in row["flags"] for row in refused.json())
    assert kept.json()[0]["energy_dft_ev"] == -6.75


def test_an_answer_can_be_fetched_by_its_link(serve, salt):
    client = serve(keep_hours=1.0)
    first, again, other = (
        client.post("/v1/score", files=salt, params={"level": level}) for level in ("95", "95", "90")
    )
    link = first.headers["x-result"]
    assert again.headers["x-result"] == link != other.headers["x-result"]
    assert client.get(link).content == first.content
    assert "mace_bounds_energy_lower_ev" in client.get(link, params={"format": "extxyz"}).text
    for wrong in (link[:-1], "/v1/results/..", "/v1/results/%00"):
        assert client.get(wrong).status_code == 404
    assert "x-result" not in serve(keep_hours=0.0).post("/v1/score", files=salt).headers


@pytest.fixture
def results():
    with ExitStack() as stack:

        def start(*given):
            made = Results(*given)
            made.start()
            stack.callback(made.stop)
            return made

        yield start


def test_results_go_when_their_time_or_the_space_is_over(mini, results, tmp_path):
    structures = list(read(example_files("NaCl")[0]))
    rows = to_json(mini.predict(structures)).encode()
    short = results(None, 1e-9, 1e6)
    name = short.keep(rows, structures, "a")
    with pytest.raises(Problem, match="not any more"):
        short.get(name)
    small = results(tmp_path, 60, 20_000)
    names = [small.keep(rows, structures, str(asked)) for asked in range(100)]
    assert len(set(names)) == 100
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    with pytest.raises(Problem):
        small.get(names[0])
    kept = results(tmp_path, 60, 20_000).get(names[-1])  # another process
    assert kept.table.equals(mini.predict(structures))
    np.testing.assert_array_equal(kept.structures[0].crystal.positions, structures[0].crystal.positions)
    assert results(None, 60, 100).keep(rows, structures, "a") is None
    assert results(None, 0, 1e6).keep(rows, structures, "a") is None


def strained(symbols, lengths):
    text = io.StringIO()
    write_ase(text, [bulk(symbols, "rocksalt", a) for a in lengths], format="extxyz")
    return text.getvalue().encode()


def test_differences_are_those_of_the_predictor(service, mini):
    data = strained("NaCl", (5.64, 5.5))
    answer = service.post("/v1/differences", files=[("files", ("two.extxyz", data))], params={"level": "90"})
    wanted = mini.differences([Upload("two.extxyz", data)], "polymorphs", level=0.9)
    assert json.loads(answer.text) == json.loads(to_json(wanted))
    (row,) = answer.json()
    assert (row["id_a"], row["id_b"], row["kind"]) == ("two.extxyz#0", "two.extxyz#1", "polymorph")
    assert row["lower_mev_per_atom"] < row["value_mev_per_atom"] < row["upper_mev_per_atom"]
    reaction = {"of": "reactions", "reaction": "NaCl + MgO -> NaClMgO"}
    said = service.post("/v1/differences", files=parts("NaCl", "MgO"), params=reaction)
    assert said.json()[0]["reason"]
    for params in ({"of": "reactions"}, {"reaction": "a -> b"}, {"of": "x"}):
        assert service.post("/v1/differences", files=parts("NaCl"), params=params).status_code == 422


def test_hull_is_that_of_the_predictor(service, mini):
    candidates, phases = strained("NaCl", (5.64, 5.5)), example_files("NaCl", "Cu")
    form = [("files", ("two.extxyz", candidates))] + [("phases", (p.name, p.read_bytes())) for p in phases]
    answer = service.post("/v1/hull", files=form, params={"energies": "model", "draws": 100})
    settings = HullSettings(energies="model", n_draws=100)
    wanted = mini.hull([Upload("two.extxyz", candidates)], [str(p) for p in phases], settings)
    assert json.loads(answer.text) == json.loads(to_json(wanted.table))
    assert json.loads(answer.headers["x-notes"]) == list(wanted.notes)
    alone = service.post(
        "/v1/hull", files=[form[0], form[2]], params={"draws": 50}
    )  # no mixture of copper is salt
    assert [row["reason"] is None for row in alone.json()] == [False, False]
    assert "nan" not in alone.headers["x-notes"]
    assert service.post("/v1/hull", files=[("phases", ("Cu.cif", b""))]).status_code == 422
    assert service.post("/v1/hull", files=parts("broken")).status_code == 422


def test_cards(service, mini):
    (model,) = service.get("/v1/models").json()
    assert (model["name"], model["heads"], model["digest"]) == ("mini", ["mini"], mini.model.digest)
    assert {"Na", "Cl"} <= set(model["elements"])
    (head,) = service.get("/v1/heads").json()
    assert (head["name"], head["levels"], head["digest"]) == (
        "mini",
        [0.68, 0.9, 0.95, 0.99],
        mini.head.digest,
    )
    errors = np.asarray(mini.head.kept_rows.error_ev_per_atom) * 1000
    assert (sum(head["errors"]["counts"]), len(head["errors"]["edges_mev_per_atom"])) == (len(errors), 61)
    assert head["errors"]["median_size_mev_per_atom"] == pytest.approx(np.median(np.abs(errors)))
    assert service.get("/v1/flags").json()["extrapolates"]


def test_examples_are_named_and_no_paths(service):
    assert "NaCl" in service.get("/v1/examples").json()
    (path,) = example_files("NaCl")
    assert service.get("/v1/examples/NaCl").content == path.read_bytes()
    for name in ("..%2f..%2fpy.typed", "broken", "NaCl.cif", "%00"):
        assert service.get(f"/v1/examples/{name}").status_code == 404


def test_health_and_metrics(service):
    assert service.get("/healthz").json() == {"status": "alive"}
    assert service.get("/readyz").json() == {"status": "ready"}
    service.post("/v1/score", files=parts("NaCl"))
    text = service.get("/metrics").text
    assert 'mace_bounds_requests_total{route="/v1/score",status="200"}' in text
    assert 'mace_bounds_structures_total{outcome="scored"}' in text


def test_the_description_has_examples_and_errors(serve, tmp_path):
    service = serve(state=tmp_path / "jobs")
    described = service.get("/openapi.json").json()
    score = described["paths"]["/v1/score"]["post"]
    assert set(score["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert score["requestBody"]["content"]["application/json"]["examples"]["ase"]["value"] == ASE_EXAMPLE
    assert {"413", "422", "503"} <= set(score["responses"])
    own_fields = {
        "/v1/score": {"predictions"},
        "/v1/jobs": {"predictions"},
        "/v1/hull": {"phases"},
        "/v1/differences": set(),
    }
    for path, own in own_fields.items():
        content = described["paths"][path]["post"]["requestBody"]["content"]
        assert set(content["multipart/form-data"]["schema"]["properties"]) == {"files", "text"} | own
    assert set(described["components"]["schemas"]["BoundsRow"]["properties"]) == set(names(list(BOUNDS)))
    for url in ("/docs", "/redoc"):  # they would load scripts from elsewhere
        assert service.get(url).status_code == 404


def test_a_route_that_there_is_not(service):
    answer = service.get("/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert service.get("/v1/score").json()["error"]["code"] == "bad_method"
