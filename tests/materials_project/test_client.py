"""How requests are carried: what is sent again, how late, and what is refused at once."""

from __future__ import annotations

import email.utils
import time

import pytest
import requests

from helpers.mp_server import KEY, QUICK, Project, serving
from mace_bounds.errors import SourceError
from mace_bounds.materials_project import Connection
from mace_bounds.materials_project import client as client_module
from mace_bounds.materials_project.client import RetryAdapter, plain_id, quiet, server_version


@pytest.fixture
def waits(monkeypatch):
    """Record the waits instead of waiting."""
    seconds = []
    monkeypatch.setattr(client_module.time, "sleep", seconds.append)
    return seconds


def search(endpoint, adapter, **headers):
    with requests.Session() as session:
        session.mount(endpoint, adapter)
        headers = {"x-api-key": KEY, **headers}
        return session.get(endpoint + "materials/thermo/?_limit=2", headers=headers)


def test_waits_double_from_the_third_try_on(project, waits):
    project.faults = ["500", "502", "503", "504", ""]
    notes = []
    with serving(project) as endpoint:
        answer = search(endpoint, RetryAdapter(Connection(KEY, backoff_s=1.5), notes.append))
    assert answer.json()["meta"]["total_doc"] == len(project.documents)
    assert waits == [0.0, 3.0, 6.0, 12.0]
    assert [note.split(" from ")[0] for note in notes] == [
        "status 500",
        "status 502",
        "status 503",
        "status 504",
    ]
    assert notes[-1].endswith("/materials/thermo/; asking again in 12 s")


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("junk", 0.0),  # as if there were none: the second try is at once
        (600.0, 600.0),
        (-600.0, 0.0),
    ],
    ids=[
        "seconds",
        "zero",
        "junk",
        "in ten minutes",
        "ten minutes ago",
    ],
)
def test_a_rate_limit_is_waited_for_as_long_as_it_says(project, waits, header, wait):
    if isinstance(header, float):  # seconds from now, as a date
        header = email.utils.formatdate(time.time() + header, usegmt=True)
    project.faults = [f"429:{header}", ""]
    with serving(project) as endpoint:
        assert search(endpoint, RetryAdapter(Connection(KEY))).status_code == 200
    assert waits == [pytest.approx(wait, abs=5)]


def test_longer_limits_than_a_quarter_of_an_hour_are_not_waited_for(project, waits):
    project.faults = ["429:901", ""]
    with serving(project) as endpoint, pytest.raises(SourceError, match="asks to wait 901 s"):
        search(endpoint, RetryAdapter(Connection(KEY)))
    assert waits == []


def test_no_more_tries_than_asked_for(project, waits):
    project.faults = ["500"] * 9
    with serving(project) as endpoint, pytest.raises(SourceError, match=r"in 3 tries \(status 500\); check"):
        search(endpoint, RetryAdapter(Connection(KEY, tries=3)))
    assert len(project.searches) == 3
    assert len(waits) == 2


def test_a_subclass_says_what_is_missing(project, waits):
    class Demanding(RetryAdapter):
        def incomplete(self, _request, _response):
            return "" if len(project.searches) == 3 else "half of it"

    with serving(project) as endpoint:
        search(endpoint, Demanding(Connection(KEY)))
    assert len(waits) == 2


def test_a_key_is_not_sent_to_where_a_redirection_leads(project, monkeypatch):
    monkeypatch.setattr(requests.Response, "is_redirect", property(lambda _: True))
    with serving(project) as endpoint, pytest.raises(SourceError, match="redirects to another address"):
        search(endpoint, RetryAdapter(Connection(KEY)))
    assert len(project.requests) == 1


def test_the_servers_version():
    with serving(Project([], db_version="2026.02.03")) as endpoint:
        version = server_version(endpoint, RetryAdapter(Connection(KEY, **QUICK)))
        assert (version.database, version.software) == ("2026.02.03", "0.87.3")
        with pytest.raises(SourceError, match="correct MP_API_ENDPOINT"):
            server_version(endpoint + "elsewhere/", RetryAdapter(Connection(KEY, **QUICK)))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("mp-149", "mp-149"),
        ("mp-aaaaaaft", "mp-149"),
        ("mvc-12", "mvc-12"),
        ("nonsense!", "nonsense!"),
        ("", ""),
    ],
)
def test_ids_in_one_spelling(name, plain):
    assert plain_id(name) == plain


def test_the_clients_log_is_silent_and_then_as_before():
    import logging

    logger = logging.getLogger("mp_api")
    before = logger.level
    with quiet():
        assert logger.level == logging.ERROR
    assert logger.level == before


@pytest.mark.parametrize(
    ("endpoint", "proxy", "cause"),
    [
        ("http://127.0.0.1:9/", None, "a refused connection"),
        ("http://no-such-host.invalid/", None, "an unknown host name, as without a network"),
        ("http://materials.example/", "http://127.0.0.1:9", "a proxy that does not work"),
    ],
)
def test_a_server_that_was_never_there_is_told_at_once_and_given_up_soon(
    endpoint, proxy, cause, waits, monkeypatch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    notes = []
    with pytest.raises(SourceError, match=rf"heartbeat cannot be reached \({cause}\); check") as error:
        server_version(endpoint, RetryAdapter(Connection(KEY), notes.append))
    assert "\n" not in str(error.value)
    assert notes[0] == f"{cause} from {endpoint}heartbeat; asking again in 0 s"
    assert sum(waits) <= 5.0


@pytest.mark.parametrize(
    "endpoint", ["", "http://", "foo", "https://:80", "http://x:port/", "http://[::1", "https://a b/"]
)
def test_an_endpoint_that_cannot_be_one_is_refused_before_anything_is_sent(endpoint):
    with pytest.raises(SourceError, match="correct --endpoint or MP_API_ENDPOINT"):
        Connection(KEY, endpoint).address()
