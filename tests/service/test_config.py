"""Settings that a service refuses to start with."""

import pytest

from mace_bounds.errors import ServiceError
from mace_bounds.service import ServiceConfig


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_no_key(host):
    assert ServiceConfig(host=host).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "localhost.example.org", ""])
def test_elsewhere_needs_keys(host, tmp_path):
    with pytest.raises(ServiceError, match="no API keys; make one"):
        ServiceConfig(host=host)
    assert not ServiceConfig(host=host, keys=tmp_path / "keys").local


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"max_seconds": float("nan")}, {"port": 70_000}, {"max_bytes": 0}]
)
def test_limits_have_limits(wrong):
    with pytest.raises(ServiceError):
        ServiceConfig(**wrong)
