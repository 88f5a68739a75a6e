"""Who is let in, how much, and what is put down of it."""

import asyncio
import json
import logging
import threading

import pytest

from helpers.asking import running
from mace_bounds.service import ServiceConfig, create_app, new_key
from mace_bounds.service.gate import HEADERS, Visit
from mace_bounds.service.schemas import EXAMPLE


def state_of(app):
    """What the parts of a service share."""
    return next(middleware.kwargs["state"] for middleware in app.user_middleware)


def test_every_answer_has_the_headers_that_keep_a_browser_safe(service):
    for url in ("/v1/heads", "/v1/nothing", "/healthz", "/page/../x"):
        answer = service.get(url)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in HEADERS["content-security-policy"]
    preflight = service.ask("OPTIONS", "/v1/score", headers={"origin": "http://127.0.0.1:8642"})
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "127.0.0.1:8642"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:9"}, 200),
        ({"host": "rebound.example.org"}, 421),
        ({"host": "127.0.0.1.example.org"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://127.0.0.1:8642"}, 200),
        ({"origin": "https://elsewhere.org"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_without_keys_only_this_machine_and_this_page(service, headers, status):
    answer = service.post("/v1/score", json=EXAMPLE, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["remedy"]


def test_keys(serve, tmp_path):
    key = new_key(tmp_path / "keys", "group")
    client = serve(host="0.0.0.0", keys=tmp_path / "keys", rate_per_minute=3)
    away = {"host": "bounds.example.org"}
    assert client.get("/healthz", headers=away).status_code == 200
    assert client.get("/v1/examples", headers=away).status_code == 200
    for url in ("/v1/heads", "/v1/models", "/metrics"):
        answer = client.get(url, headers=away)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/v1/heads", headers={"authorization": f"Bearer {key}x"}).status_code == 401
    assert client.get("/v1/heads", headers={"authorization": f"Basic {key}"}).status_code == 401
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"x-api-key": key},
        {"authorization": f"bearer {key}"},
    ):
        assert client.get("/v1/heads", headers={**away, **headers}).status_code == 200
    often = client.get("/v1/heads", headers={"x-api-key": key})
    assert (often.status_code, int(often.headers["retry-after"])) == (429, 20)


def test_large_requests_are_refused_before_and_while_they_come(serve):
    client = serve(max_bytes=2000)
    answer = client.post("/v1/score", content=b"x" * 3000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    sent = []

    async def chunks():
        for _ in range(1000):
            sent.append(1)
            yield b"[" * 100

    answer = client.post("/v1/score", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert len(sent) < 50


def test_a_slow_client_is_told(serve):
    async def slow():
        yield b"["
        await asyncio.sleep(5)
        yield b"]"

    answer = serve(max_seconds=0.2).post(
        "/v1/score", content=slow(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "too_slow")


def test_more_than_the_queue_holds_is_told_to_come_again(serve):
    client = serve(queue=2)
    answers = client.together(*[("/v1/score", {"json": EXAMPLE})] * 8)
    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert 1 <= int(answer.headers["retry-after"]) <= 30
            assert answer.json()["error"]["code"] == "busy"
    assert client.post("/v1/score", json=EXAMPLE).status_code == 200


def test_nothing_is_taken_before_the_model_is_there(predictors):
    let_go = threading.Event()

    app = create_app(ServiceConfig(), predictors)
    state = state_of(app)
    load = state.worker._load
    state.worker._load = lambda: (let_go.wait(30), load())[1]
    with running(app) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json() == {"status": "loading"}
        answer = client.post("/v1/score", json=EXAMPLE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
        let_go.set()
        assert client.wait_ready().post("/v1/score", json=EXAMPLE).status_code == 200


def test_a_model_that_cannot_be_loaded_is_said():
    with running(create_app(ServiceConfig(model="no-such-model"))) as client:
        assert state_of(client.app).worker.loaded.wait(30)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "failed")
        assert "no-such-model" in ready.json()["reason"]
        assert client.post("/v1/score", json=EXAMPLE).status_code == 503


def test_log_lines_tell_of_requests_and_not_of_structures(service, caplog):
    caplog.set_level(logging.INFO, "mace_bounds.service")
    service.post(
        "/v1/score",
        files=[("files", ("secret-alloy.cif", b"data_secret"))],
        headers={"x-request-id": "my-id.1"},
    )
    line = json.loads(caplog.records[-1].getMessage())
    assert {
        "id": "my-id.1",
        "route": "/v1/score",
        "status": 422,
        "structures": 1,
        "failed": 1,
    }.items() <= line.items()
    assert "secret" not in caplog.text


@pytest.mark.parametrize("wanted", ["a b", "x" * 65, "<script>", "ä", "a%0d%0aset-cookie: x=1", ""])
def test_numbers_of_requests_are_plain(service, wanted):
    answer = service.get("/healthz", headers=[(b"x-request-id", wanted.encode())])
    assert len(answer.headers["x-request-id"]) == 32
    assert "set-cookie" not in answer.headers


def test_a_fault_is_one_sentence_without_what_it_was_about(predictors, caplog):
    app = create_app(ServiceConfig(), predictors)

    @app.get("/v1/broken")
    def broken():
        raise RuntimeError("the secret structure")

    with running(app) as client:
        answer = client.get("/v1/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "fault")
    assert "secret" not in answer.text + caplog.text


def test_who_leaves_costs_nothing_more(serve):
    """A client that goes away before its turn: its structure never goes through the model."""
    client = serve(window_ms=1000)
    state = state_of(client.app)
    model = state.worker.predictors["mini"].model
    lattice = {"matrix": [[5.71, 0, 0], [0, 5.72, 0], [0, 0, 5.73]]}  # that no other test has
    messages = [{"type": "http.request", "body": json.dumps({**EXAMPLE, "lattice": lattice}).encode()}]
    sent = []

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "http_version": "1.1",
        "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    before = model.misses
    state.visits[0] = Visit("another that is on its way")  # for which the worker waits
    client.run(client.app(scope, receive, send))
    del state.visits[0]
    client.post("/v1/score", json=EXAMPLE)
    assert not sent
    assert model.misses - before <= 1  # of the second request, whose answer comes after the turn of the first
