"""Jobs: the same bounds as at once, kept, cancelled, and gone on with after the service has ended in the middle."""

import io
import threading
import time

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write

from helpers.asking import running
from mace_bounds.bounds import MOST_STRUCTURES, BoundsPredictor
from mace_bounds.service import ServiceConfig, create_app, new_key
from mace_bounds.service.jobs import Jobs
from mace_bounds.service.schemas import EXAMPLE
from mace_bounds.structures import Upload, read

N = 150  # of more than two shards


@pytest.fixture(scope="module")
def many():
    """A file of crystals, one of which cannot be used, and one file that cannot be read."""
    crystals = [bulk("NaCl", "rocksalt", 5.0 + 0.005 * k) for k in range(N)]
    crystals[40].positions[1] = crystals[40].positions[0] + 0.1
    text = io.StringIO()
    write(text, crystals, format="extxyz")
    return [("files", ("many.extxyz", text.getvalue().encode())), ("files", ("none.cif", b"data_x"))]


def wanted(mini, many):
    uploads = [Upload(name, data) for _, (name, data) in many]
    return mini.predict(list(read(uploads)))


def finished(client, name, seconds=60, **options):
    end = time.monotonic() + seconds
    while (job := client.get(f"/v1/jobs/{name}", **options).json())["status"] in ("waiting", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    return job


def table_of(client, name):
    answer = client.get(f"/v1/jobs/{name}/result")
    assert answer.status_code == 200
    return answer.content, pd.read_parquet(io.BytesIO(answer.content))


def test_a_job_gives_what_score_gives(serve, mini, many, tmp_path):
    client = serve(state=tmp_path / "state")
    made = client.post("/v1/jobs", files=many, params={"level": "0.9"})
    assert (made.status_code, made.json()["status"]) == (202, "waiting")
    name = made.json()["id"]
    assert made.headers["location"] == f"/v1/jobs/{name}"
    job = finished(client, name)
    assert (job["status"], job["done"], job["failed"], job["level"]) == ("done", N + 1, 2, 0.9)
    _, table = table_of(client, name)
    expected = wanted(mini, many)
    assert table["id"].tolist() == expected["id"].tolist()
    assert table["reason"].fillna("").tolist() == expected["reason"].fillna("").tolist()
    assert table["energy_model_ev"].to_numpy() == pytest.approx(
        expected["energy_model_ev"].to_numpy(), abs=1e-4, nan_ok=True
    )
    assert set(table["level"]) == {0.9}
    csv = client.get(f"/v1/jobs/{name}/result", params={"format": "csv"})
    assert len(csv.text.splitlines()) == N + 2
    assert [job["id"] for job in client.get("/v1/jobs").json()] == [name]
    assert client.ask("DELETE", f"/v1/jobs/{name}").json()["status"] == "forgotten"
    assert client.get(f"/v1/jobs/{name}").status_code == 404
    assert not (tmp_path / "state" / name).exists()


class Counted:
    """The model, which counts what it is asked, says when a shard is there, and waits then if it is to be stopped."""

    def __init__(self, inner):
        self.inner, self.calls, self.several, self.stops = inner, [], threading.Event(), False

    def __getattr__(self, key):
        return getattr(self.inner, key)

    def extract(self, crystals, kind="readout", *, atoms=False):
        self.calls.append(len(crystals))
        block = self.inner.extract(crystals, kind, atoms=atoms)
        if len(self.calls) == 3:
            self.several.set()
            time.sleep(0.3 * self.stops)
        return block


def test_a_job_goes_on_where_the_service_has_ended(mini, many, tmp_path):
    model = Counted(mini.model._inner)
    counted = {"mini": BoundsPredictor(model, mini.head)}

    def all_of(state, name=None):
        model.calls.clear()
        with running(create_app(ServiceConfig(state=state), counted)) as client:
            client.wait_ready()
            name = name or client.post("/v1/jobs", files=many).json()["id"]
            assert finished(client, name)["status"] == "done"
            return table_of(client, name)[0], sum(model.calls)

    at_once, n_whole = all_of(tmp_path / "whole")
    model.stops, state = True, tmp_path / "state"
    model.calls.clear()
    model.several.clear()
    with running(create_app(ServiceConfig(state=state), counted)) as client:
        name = client.wait_ready().post("/v1/jobs", files=many).json()["id"]
        assert model.several.wait(30)
    assert list((state / name / "store").glob("shard-*.parquet"))
    model.stops = False
    resumed, n_left = all_of(state, name)
    assert n_left <= n_whole - MOST_STRUCTURES + 1  # at least one shard was not computed again
    assert resumed == at_once  # the same bytes


def test_a_job_that_is_cancelled_ends(serve, many, tmp_path):
    client = serve(state=tmp_path)
    names = [client.post("/v1/jobs", files=many).json()["id"] for _ in range(2)]
    assert client.ask("DELETE", f"/v1/jobs/{names[1]}").json()["status"] == "cancelled"
    assert finished(client, names[0])["status"] == "done"
    time.sleep(0.2)
    assert client.get(f"/v1/jobs/{names[1]}").json()["status"] == "cancelled"
    early = client.get(f"/v1/jobs/{names[1]}/result")
    assert (early.status_code, "cancelled" in early.text) == (422, True)


def test_jobs_are_seen_by_the_key_that_made_them(serve, tmp_path):
    keys = {name: {"x-api-key": new_key(tmp_path / "keys", name)} for name in ("one", "other")}
    client = serve(keys=tmp_path / "keys", state=tmp_path / "state")
    name = client.post("/v1/jobs", json=EXAMPLE, headers=keys["one"]).json()["id"]
    assert finished(client, name, headers=keys["one"])["status"] == "done"
    for url in (f"/v1/jobs/{name}", f"/v1/jobs/{name}/result"):
        assert client.get(url, headers=keys["other"]).status_code == 404
    assert client.ask("DELETE", f"/v1/jobs/{name}", headers=keys["other"]).status_code == 404
    assert client.get("/v1/jobs", headers=keys["other"]).json() == []
    for wrong in ("..%2fjobs.sqlite", "%27%20OR%201=1", "x" * 500):
        assert client.get(f"/v1/jobs/{wrong}", headers=keys["one"]).status_code == 404


def test_limits_of_jobs(serve, service, tmp_path):
    assert service.post("/v1/jobs", json=EXAMPLE).status_code in (404, 405)  # started without --state
    client = serve(state=tmp_path, max_bytes=2000, max_job_bytes=5000)
    assert "make a job" in client.post("/v1/score", content=b" " * 3000).json()["error"]["remedy"]
    assert client.post("/v1/jobs", content=b" " * 6000).status_code == 413
    body = {"content": b"[" + b" " * 3000 + b"]", "headers": {"content-type": "application/json"}}
    name = client.post("/v1/jobs", **body).json()["id"]
    assert finished(client, name)["failed"] == 1


def test_old_jobs_are_forgotten(serve, tmp_path):
    client = serve(state=tmp_path, job_days=0.0)
    name = client.post("/v1/jobs", json=EXAMPLE).json()["id"]
    end = time.monotonic() + 30
    while client.get(f"/v1/jobs/{name}").status_code != 404:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    from mace_bounds.errors import ServiceError

    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="another folder with --state"):
        Jobs(tmp_path / "file", None, ServiceConfig(), None)
