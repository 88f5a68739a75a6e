"""Bytes that no well-behaved client sends: each is refused or answered once, and nothing follows from it."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import httpx
import pytest

from mace_bounds.service.schemas import EXAMPLE

BODY = json.dumps(EXAMPLE).encode()
JSON = b"content-type: application/json\r\n"
HIDDEN = b"GET /v1/heads HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"  # what a smuggled request would ask


def exchanged(url, data, quiet_s=3.0):
    """All bytes that come back on one connection, until it is closed or nothing has come for a while."""
    host, port = url.removeprefix("http://").split(":")
    got = b""
    with (
        suppress(ConnectionError, TimeoutError),  # who has refused closes while there is more to read
        socket.create_connection((host, int(port)), timeout=quiet_s) as connection,
    ):
        connection.sendall(data)
        while part := connection.recv(65536):
            got += part
    return got


def statuses(got):
    """Of every answer on a connection; each has the length that it says."""
    found = []
    while got:
        head, _, rest = got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert "set-cookie" not in headers
        assert "x-injected" not in headers
        found.append(int(first.split()[1]))
        length = int(headers.get("content-length", len(rest)))
        got = rest[length:]
    return found


def post(*headers, body=BODY, length=True):
    lines = [b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\n", JSON, *headers]
    if length:
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join(lines) + b"\r\n" + body


NONE = {
    "two lengths": post(b"content-length: 3\r\n"),
    "length and chunks": post(b"transfer-encoding: chunked\r\n", body=b"0\r\n\r\n" + HIDDEN),
    "two encodings": post(
        b"transfer-encoding: chunked\r\n", b"transfer-encoding: identity\r\n", body=b"0\r\n\r\n", length=False
    ),
    "unknown encoding": post(b"transfer-encoding: xchunked\r\n", body=b"0\r\n\r\n" + HIDDEN, length=False),
    "space before a colon": post(b"transfer-encoding : chunked\r\n", body=b"0\r\n\r\n" + HIDDEN),
    "signed length": post(b"content-length: +5\r\n", length=False),
    "lengths in a list": post(b"content-length: 5, 6\r\n", length=False),
    "negative length": post(b"content-length: -1\r\n", length=False),
    "chunk that is none": post(b"transfer-encoding: chunked\r\n", body=b"zz\r\nx\r\n0\r\n\r\n", length=False),
    "two hosts": b"POST /v1/score HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
    "null in the path": b"GET /\0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "carriage return in a header": b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: a\rset-cookie: b=c\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "lines without a request": b"\r\n" * 50_000,
    "header without an end": b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("data", NONE.values(), ids=NONE)
def test_requests_that_are_none_are_refused_and_hide_no_other(address, data):
    got = exchanged(address, data)
    assert len(statuses(got)) <= 1  # at most one refusal: no second request was found inside
    assert b"levels" not in got
    assert all(400 <= status < 500 for status in statuses(got))
    assert httpx.get(f"{address}/readyz").status_code == 200


def test_two_requests_at_once_are_two(address):
    one = post()
    assert statuses(exchanged(address, one + HIDDEN, quiet_s=10)) == [200, 200]


def test_the_rest_of_a_refused_body_is_no_request(address):
    """Refused before its body is read, and the body looks like a request."""
    data = post(b"origin: https://elsewhere.org\r\n", body=HIDDEN)
    got = exchanged(address, data)
    assert statuses(got)[0] == 403
    assert b"levels" not in got


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/results/%0d%0ax-injected:%201",
        b"/v1/examples/%0d%0aset-cookie:%20a=b",
        b"/v1/jobs/..%2f..%2fetc%2fpasswd",
        b"/page/..%2f..%2f..%2f..%2fetc%2fpasswd",
        b"/page/%2e%2e/app.py",
        b"//elsewhere.org/v1/heads",
        b"http://elsewhere.org/v1/heads",
    ],
)
def test_paths_name_no_header_file_or_other_place(address, path):
    got = exchanged(
        address, b"GET " + path + b" HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", quiet_s=60
    )
    (status,) = statuses(got)
    assert status in (400, 404)
    assert b"root:" not in got
    assert b"location:" not in got.lower()


def test_a_client_that_sends_a_byte_now_and_then_keeps_nobody_waiting(address):
    """While one body comes slowly others are answered, and the slow one is when it is there."""
    host, port = address.removeprefix("http://").split(":")
    data = post()
    with socket.create_connection((host, int(port)), timeout=60) as slow:
        slow.sendall(data[:-20])
        for at in range(len(data) - 20, len(data), 5):
            answer = httpx.post(f"{address}/v1/score", json=EXAMPLE, timeout=60)
            assert answer.status_code == 200
            slow.sendall(data[at : at + 5])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")


def test_half_requests_of_many_clients_are_forgotten(address):
    """Connections that send a part and go leave nothing under way."""
    for cut in range(10, len(post()), 40):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(post()[:cut])
    end = time.monotonic() + 30
    while "mace_bounds_under_way 0.0" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.1)
