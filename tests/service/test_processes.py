"""Two processes behind one port, for real: links, counts and jobs are those of one service; none is lost at the end."""

from __future__ import annotations

import asyncio
import io
import signal
import time
from collections import Counter

import httpx
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from load_study import crystal, service

pytestmark = pytest.mark.slow
N_JOB = 130
ASKED = {"verify": False, "headers": {"connection": "close"}, "timeout": 120}
"""Each request on a connection of its own, which either process may take; certificates take longer than an answer."""


def counts(url):
    found = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", **ASKED).text):
        for sample in family.samples:
            found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return found


async def at_once(url, n, process=None):
    """Requests on connections of their own; the service is ended when the first is answered."""
    seen = Counter()

    async def ask(k):
        async with httpx.AsyncClient(**ASKED) as client:
            answer = await client.post(f"{url}/v1/score", json=crystal(5000 + k))
        own = answer.status_code == 200 and answer.json()[0]["id"] == f"salt-{5000 + k}"
        seen["own answer" if own else str(answer.status_code)] += 1

    tasks = [asyncio.create_task(ask(k)) for k in range(n)]
    while not seen:
        await asyncio.sleep(0.005)
    if process is not None:
        process.send_signal(signal.SIGTERM)
    await asyncio.gather(*tasks)
    return seen


def test_two_processes_are_one_service(tmp_path):
    options = ("--workers", "2", "--state", str(tmp_path / "state"), "--max-slowdown", "1000")
    with service(*options) as (process, url):
        end = time.monotonic() + 120
        while counts(url).get(("mace_bounds_ready",)) != 2:
            assert time.monotonic() < end
            time.sleep(0.2)
        first = httpx.post(f"{url}/v1/score", json=crystal(0), **ASKED)
        for _ in range(12):  # each time a new connection: either process answers
            assert httpx.get(url + first.headers["x-result"], **ASKED).content == first.content
        jobs = [
            httpx.post(f"{url}/v1/jobs", json=[crystal(k) for k in range(N_JOB)], **ASKED).json()["id"]
            for _ in range(3)
        ]
        seen = asyncio.run(at_once(url, 20))
        assert seen == {"own answer": 20}
        for name in jobs:
            while (job := httpx.get(f"{url}/v1/jobs/{name}", **ASKED).json())["status"] in (
                "waiting",
                "running",
            ):
                time.sleep(0.1)
            assert (job["status"], job["done"], job["failed"]) == ("done", N_JOB, 0)
        results = [httpx.get(f"{url}/v1/jobs/{name}/result", **ASKED).content for name in jobs]
        tables = [pd.read_parquet(io.BytesIO(result)) for result in results]
        assert [len(table) for table in tables] == [N_JOB] * 3
        told = counts(url)
        assert (
            told["mace_bounds_structures_total", ("outcome", "scored")] == 21
        )  # of both, whichever was asked
        posts = ("mace_bounds_requests_total", ("route", "/v1/score"), ("status", "200"))
        assert told[posts] == 21
        runs = told["mace_bounds_jobs_total", ("outcome", "done")]
        assert runs == 3  # each by one process
        assert (told[("mace_bounds_waiting",)], told[("mace_bounds_under_way",)]) == (0, 0)
        ended = asyncio.run(at_once(url, 16, process))
        assert ended == {"own answer": 16}
        assert process.wait(60) == 0
