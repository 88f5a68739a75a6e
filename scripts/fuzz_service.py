"""Throw damaged files, odd parameters and odd bodies at the service in this process: no 500, no traceback, one shape.

    python scripts/fuzz_service.py --files 2000 --requests 5000

Files are the shipped examples and what the package writes of them, mutated. Requests are made from the service's own
description: every route with odd values of every parameter, odd types of content and bodies. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import io
import json
import random
import time
import zipfile
from collections import Counter

import httpx
from ase.io import write

from mace_bounds import BoundsPredictor, read
from mace_bounds.examples import example_files
from mace_bounds.service import ServiceConfig, create_app

ODD = [
    "", "0", "-1", "1e999", "nan", "0.95", "95 %", "null", "true", "[]", "{}", "../../etc/passwd", "/etc/passwd", "mini",
    "<script>alert(1)</script>", "' OR 1=1 --", "\0", "\r\nset-cookie: a=b", "é", "💎", "\ud800", "x" * 5000, "%00", "%2e%2e%2f",
    "${jndi:ldap://x}", "{{7*7}}", "9" * 400,
]  # fmt: skip
TYPES = ["application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "", "application/xml",
         "application/json; charset=utf-7", "x" * 300, "application/x-www-form-urlencoded"]  # fmt: skip


def seeds():
    """Small files of many formats."""
    files = {path.name: path.read_bytes() for path in example_files("NaCl", "TiO2", "LiCoO2", "broken")}
    for name, kind in (("a.vasp", "vasp"), ("a.xyz", "extxyz"), ("a.xsf", "xsf")):
        text = io.StringIO()
        atoms = next(iter(read(example_files("NaCl")[0]))).crystal.to_atoms()
        write(text, atoms, format=kind)
        files[name] = text.getvalue().encode()
    structure = {"lattice": {"matrix": [[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]}, "sites": [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]}, {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]}]}  # fmt: skip
    files["a.json"] = json.dumps(structure).encode()
    files["b.json"] = json.dumps(
        {"entries": [{"entry_id": "x", "energy": -6.7, "structure": structure}]}
    ).encode()
    files["a.jsonl"] = (json.dumps(structure) + "\n").encode() * 3
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.cif", files["NaCl.cif"])
    return {**files, "a.zip": packed.getvalue(), "a.cif.gz": gzip.compress(files["NaCl.cif"])}


def mutated(data, rng):
    """Bytes changed, cut, doubled, or numbers made extreme."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        kind, at = rng.randrange(7), rng.randrange(max(len(data), 1))
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 200)] * rng.randint(1, 5)
        elif kind == 3:
            data[at:at] = rng.choice(
                [
                    b"1e308",
                    b"-0",
                    b"nan",
                    b"inf",
                    b"\0",
                    b"\xff\xfe",
                    b"'",
                    b'"',
                    b"\n\n",
                    b"(",
                    b";",
                    b"[[[[",
                ]
            )
        elif kind == 4:
            data = data[:at]
        elif kind == 5:
            data = bytearray(
                bytes(data).replace(
                    rng.choice([b"0", b"1", b"5"]), rng.choice([b"9", b"-1", b"", b"0.0000001"]), 3
                )
            )
        else:
            data[at:at] = str(rng.choice([1, 7, 119, 1000, 10**9])).encode()
    return bytes(data)


class Fuzz:
    def __init__(self, client):
        self.client, self.seen, self.faults, self.slowest = client, Counter(), [], 0.0

    async def ask(self, what, method, url, **options):
        start = time.monotonic()
        try:
            request = self.client.build_request(method, url, **options)
        except (UnicodeError, ValueError, TypeError, httpx.InvalidURL):
            self.seen["not sendable"] += 1
            return
        answer = await self.client.send(request)
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.seen[str(answer.status_code)] += 1
        trouble = answer.status_code >= 500 and answer.status_code != 503
        trouble |= "Traceback" in answer.text or 'File "' in answer.text
        trouble |= "set-cookie" in answer.headers
        if answer.status_code >= 400 and method != "HEAD":  # whose answers have no body
            try:
                error = answer.json()["error"]
                trouble |= not error["sentence"] or not error["request_id"]
            except (ValueError, KeyError, TypeError):
                trouble = True
        if trouble:
            self.faults.append([what, answer.status_code, answer.text[:300]])

    async def files(self, n, rng):
        originals = list(seeds().items())
        for k in range(n):
            name, data = rng.choice(originals)
            name = (
                name
                if rng.random() < 0.8
                else rng.choice(["x", "POSCAR", "a.cif", "b.json", "c.db", "d.traj", "e.tar"])
            )
            route = "/v1/explain" if k % 10 == 0 else "/v1/score"
            await self.ask(f"file {k} {name}", "POST", route, files=[("files", (name, mutated(data, rng)))])

    async def requests(self, n, rng):
        described = (await self.client.get("/openapi.json")).json()["paths"]
        routes = [
            (method.upper(), path, about)
            for path, methods in described.items()
            for method, about in methods.items()
        ]
        body = seeds()["a.json"]
        for k in range(n):
            method, path, about = rng.choice(routes)
            url = path.replace(
                "{name}", rng.choice(["NaCl", *map(str, range(3)), "..%2f..", "%00", "x" * 300])
            )
            names = [p["name"] for p in about.get("parameters", []) if p["in"] == "query"] + ["other"]
            given = {name: rng.choice(ODD) for name in names if rng.random() < 0.3}
            options = {"params": {key: value for key, value in given.items() if "\ud800" not in value}}
            headers = {"x-request-id": rng.choice(["a", "<b>", "x" * 99])}
            if method == "POST":
                content = (
                    body
                    if rng.random() < 0.5
                    else rng.choice([b"", b"[", b"null", b"{}", b"\xff", mutated(body, rng)])
                )
                kind = "application/json" if rng.random() < 0.6 else rng.choice(TYPES)
                options |= {"content": content, "headers": {**headers, "content-type": kind}}
            else:
                options |= {"headers": headers}
            if rng.random() < 0.05:
                method = rng.choice(["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
            await self.ask(f"request {k} {method} {url} {given}", method, url, **options)


async def run(n_files, n_requests, seed):
    app = create_app(ServiceConfig(), {"mini": BoundsPredictor("mini")})
    rng = random.Random(seed)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            fuzz = Fuzz(client)
            await fuzz.files(n_files, rng)
            of_files, fuzz.seen = dict(fuzz.seen), Counter()
            await fuzz.requests(n_requests, rng)
            healthy = (await client.get("/readyz")).status_code == 200
    return {"files": of_files, "requests": dict(fuzz.seen), "slowest_s": round(fuzz.slowest, 2), "healthy": healthy,
            "faults": fuzz.faults[:10], "n_faults": len(fuzz.faults)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    said = asyncio.run(run(options.files, options.requests, options.seed))
    print(json.dumps(said, indent=2, ensure_ascii=True))
    raise SystemExit(1 if said["n_faults"] or not said["healthy"] else 0)


if __name__ == "__main__":
    main()
