"""Load a service on this machine: latency, overload, memory, ends by SIGTERM and SIGKILL. Prints JSON, each part to stderr first.

    python scripts/load_study.py --seconds 60 --requests 10000

Everything is sent to 127.0.0.1, bounded in number and time. The server runs as ``mace-bounds serve --model mini``; load and
server share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def service(*options, port=None):
    """A server that is ready; ends with the block."""
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "mace_bounds",
        "serve",
        "--model",
        "mini",
        "--port",
        str(port),
        *options,
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{url}/readyz", verify=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                raise RuntimeError(log.read().decode())
            time.sleep(0.2)
        try:
            yield process, url
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(120)


def crystal(k):
    """Rock salt of 8 atoms; each k another one, so that nothing is remembered: 5.4 to 5.9 Å, not in any order."""
    a = 5.4 + 0.5 * (k * 0.6180339887498949 % 1)
    places = [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    return {
        "numbers": [11] * 4 + [17] * 4,
        "positions": [[a / 2 * x for x in place] for place in places],
        "cell": [[a, 0, 0], [0, a, 0], [0, 0, a]],
        "pbc": [True] * 3,
        "key_value_pairs": {"name": f"salt-{k}"},
    }


def memory_mb(process):
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return math.nan


def quantiles(seconds):
    if not seconds:
        return None
    p50, p99 = np.quantile(1000 * np.array(seconds), [0.5, 0.99])
    return {"n": len(seconds), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}


class Asking:
    """Connections to a service that are used again: plain sockets, as a library would take more of the cores than it."""

    def __init__(self, url):
        self.host, self.port = url.removeprefix("http://").split(":")
        self.free, self.seen = [], Counter()

    async def score(self, k):
        """Send one crystal; the seconds that its answer took, None if it got none or not its own."""
        start = time.monotonic()
        for fresh in (
            not self.free,
            True,
        ):  # a connection that was used before may have been closed meanwhile
            try:
                reader, writer = (
                    await asyncio.open_connection(self.host, self.port) if fresh else self.free.pop()
                )
                status, headers, body = await self._sent(reader, writer, json.dumps(crystal(k)).encode())
                break
            except (OSError, asyncio.IncompleteReadError) as error:
                if fresh:
                    self.seen[type(error).__name__] += 1
                    return None
        took = time.monotonic() - start
        if headers.get("connection") != "close":
            self.free.append((reader, writer))
        if status == 200:
            own = [row["id"] for row in json.loads(body)] == [f"salt-{k}"]
            self.seen["200" if own else "wrong answer"] += 1
            return took if own else None
        told = status == 503 and headers.get("retry-after", "").isdecimal()
        self.seen["503 with Retry-After" if told else str(status)] += 1
        return None

    def close(self):
        for _, writer in self.free:
            writer.close()

    async def _sent(self, reader, writer, body):
        head = f"POST /v1/score HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def closed_loop(url, seconds, at_once, first):
    """As many requests as are answered by so many clients."""
    asking, times, ends, k = Asking(url), [], time.monotonic() + seconds, first

    async def one():
        nonlocal k
        while time.monotonic() < ends:
            k += 1
            times.append(await asking.score(k))
            if times[-1] is None:
                await asyncio.sleep(0.05)

    start = time.monotonic()
    await asyncio.gather(*(one() for _ in range(at_once)))
    took = time.monotonic() - start
    asking.close()
    good = [t for t in times if t is not None]
    return {"seen": dict(asking.seen), "per_s": round(len(good) / took, 1), **(quantiles(good) or {})}


async def open_loop(url, process, per_s, seconds, first):
    """Requests at a rate, whether they are answered or not."""
    asking, memory, late = Asking(url), [], 0.0
    n = int(per_s * seconds)
    start, tasks = time.monotonic(), []
    for k in range(n):
        due = start + k / per_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late = max(late, time.monotonic() - due)
        tasks.append(asyncio.create_task(asking.score(first + k)))
        if k % 20 == 0:
            memory.append(memory_mb(process))
    times = await asyncio.gather(*tasks)
    asking.close()
    good = [t for t in times if t is not None]
    return {
        "sent": n,
        "latest_s": round(late, 2),  # of the one that sends, which shares the cores
        "seen": dict(asking.seen),
        "all_answered_once": sum(asking.seen.values()) == n,
        "memory_mb": [round(min(memory)), round(max(memory))],
        "accepted": quantiles(good),
    }


async def sigterm(url, process, n, first):
    """Requests at once, and the end in the middle of them."""
    asking = Asking(url)
    tasks = [asyncio.create_task(asking.score(first + k)) for k in range(n)]
    while not asking.seen:
        await asyncio.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*tasks)
    asking.close()
    code = await asyncio.to_thread(process.wait, 120)
    return {"sent": n, "seen": dict(asking.seen), "exit_code": code}


def sigkill(n):
    """A job whose service is killed goes on after the restart, with the same bytes."""

    def run(url, name=None, until=None):
        if name is None:
            body = [crystal(10_000_000 + k) for k in range(n)]
            name = httpx.post(f"{url}/v1/jobs", json=body, timeout=120).json()["id"]
        while (job := httpx.get(f"{url}/v1/jobs/{name}").json())["status"] in ("waiting", "running"):
            if until is not None and job["done"] >= until:
                return name, job, b""
            time.sleep(0.02)
        return name, job, httpx.get(f"{url}/v1/jobs/{name}/result").content

    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as state:
        with service("--state", whole) as (_, url):
            at_once = run(url)[2]
        with service("--state", state) as (process, url):
            name, job, _ = run(url, until=1)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with service("--state", state) as (_, url):
            _, ended, resumed = run(url, name)
    return {
        "structures": n,
        "done_when_killed": job["done"],
        "status": ended["status"],
        "same_bytes": resumed == at_once,
    }


def throughput(url, n):
    """Structures a second of the predictor here, and of the service by requests of 100."""
    from mace_bounds import BoundsPredictor
    from mace_bounds.structures import Upload, read

    def bodies(first):
        return [json.dumps([crystal(first + k + j) for j in range(100)]) for k in range(0, n, 100)]

    predictor = BoundsPredictor("mini")
    predictor.predict(list(read([Upload("a.json", body.encode()) for body in bodies(20_000_000)[:1]])))
    start = time.monotonic()
    predictor.predict(read([Upload("a.json", body.encode()) for body in bodies(21_000_000)]))
    here = n / (time.monotonic() - start)
    start = time.monotonic()
    with httpx.Client(base_url=url, timeout=300) as client:
        for body in bodies(22_000_000):
            client.post(
                "/v1/score", content=body, headers={"content-type": "application/json"}
            ).raise_for_status()
    there = n / (time.monotonic() - start)
    return {
        "structures": n,
        "predictor_per_s": round(here, 1),
        "service_per_s": round(there, 1),
        "share": round(there / here, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the overload")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="of the overload, a second; 0: four times what is sustained"
    )
    parser.add_argument("--requests", type=int, default=10_000, help="in a row")
    parser.add_argument("--job", type=int, default=1000, help="structures of the job that is killed")
    parser.add_argument("--queue", type=int, default=64, help="of the service")
    parser.add_argument("--only", default="", help="parts, joined by commas")
    options = parser.parse_args()
    parts = set(options.only.split(",")) - {""}

    def wanted(name):
        return not parts or name in parts

    class Said(dict):
        """What was measured; each part is shown as it comes, as the next may take long."""

        def __setitem__(self, name, value):
            super().__setitem__(name, value)
            print(f"{name}: {json.dumps(value)}", file=sys.stderr, flush=True)

    said = Said({"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]})
    with service("--queue", str(options.queue)) as (process, url):
        asyncio.run(closed_loop(url, 2, 1, 100_000))  # warm
        if wanted("latency"):
            said["unloaded"] = asyncio.run(closed_loop(url, min(10, options.seconds), 1, 200_000))
        if wanted("throughput"):
            said["throughput"] = throughput(url, 500)
        if wanted("overload"):
            # as many clients as keep the model busy: more would be told to come again, and ask in vain
            tried = [
                asyncio.run(closed_loop(url, min(10, options.seconds), n, 300_000 + 10_000 * n))
                | {"clients": n}
                for n in (4, 8, 16)
            ]
            said["sustained"] = max(tried, key=lambda one: one["per_s"])
            rate = options.rate or 4 * said["sustained"]["per_s"]
            said["overload"] = {"per_s": rate, "load": os.getloadavg()[0]} | asyncio.run(
                open_loop(url, process, rate, options.seconds, 400_000)
            )
            said["after"] = asyncio.run(closed_loop(url, 2, 1, 900_000))
        if wanted("memory"):
            before = memory_mb(process)
            marks = []
            for part in range(5):
                asyncio.run(in_a_row(url, options.requests // 5, 1_000_000 + part * options.requests))
                marks.append(round(memory_mb(process)))
            said["memory_mb"] = {"before": round(before), "every_fifth": marks}
        if wanted("sigterm"):
            said["sigterm"] = asyncio.run(sigterm(url, process, 48, 5_000_000))
    if wanted("sigkill"):
        said["sigkill"] = sigkill(options.job)
    print(json.dumps(said, indent=2))


async def in_a_row(url, n, first):
    """So many requests, four at a time, which is never too many."""
    asking, left = Asking(url), iter(range(first, first + n))

    async def one():
        for k in left:
            await asking.score(k)

    await asyncio.gather(*(one() for _ in range(4)))
    asking.close()
    assert asking.seen == {"200": n}, asking.seen


if __name__ == "__main__":
    main()
