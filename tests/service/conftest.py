"""One loaded model for all tests of the service."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from helpers.asking import running
from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig, create_app
from mace_bounds.service.worker import load_predictors


@pytest.fixture(scope="session")
def predictors():
    """The shipped model and head, with the memory of the service."""
    return load_predictors(ServiceConfig(model="mini"))


@pytest.fixture(scope="session")
def mini(predictors):
    return predictors["mini"]


@pytest.fixture
def serve(predictors):
    """Start services of other settings; they end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**settings):
            app = create_app(ServiceConfig(**settings), predictors)
            return stack.enter_context(running(app)).wait_ready()

        yield start


@pytest.fixture(scope="session")
def service(predictors):
    """A service that refuses nobody for the time to wait, as tests share the processor with others."""
    with running(create_app(ServiceConfig(max_slowdown=1e4), predictors)) as client:
        yield client.wait_ready()


@contextmanager
def listening(predictors, **settings):
    """The address of a service that listens on a port, in this process."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        app = create_app(ServiceConfig(port=port, **{"max_seconds": 120, **settings}), predictors)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def address(predictors):
    """A service of mini."""
    with listening(predictors) as url:
        yield url


@pytest.fixture(scope="module")
def both():
    """The shipped head and one of another model's energies."""
    return load_predictors(ServiceConfig(heads=("mini", "mace-mpa-0-published")))


@pytest.fixture(scope="module")
def address_of_both(both):
    """A service of both heads."""
    with listening(both) as url:
        yield url


@pytest.fixture(scope="session")
def salt():
    """NaCl as a part of a form."""
    (path,) = example_files("NaCl")
    return [("files", ("NaCl.cif", path.read_bytes()))]
