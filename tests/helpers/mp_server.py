"""A Materials Project of our own on the loopback interface, for the real client to talk to.

It speaks the addresses that the client uses for thermodynamic documents, with the meaning that the server's
public source (materialsproject/emmet) gives their parameters, and misbehaves on demand.
"""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from emmet.core.mpid import AlphaID
from pymatgen.core import Composition, Lattice

KEY = "0123456789abcdef0123456789abcdef"
QUICK = {"tries": 4, "backoff_s": 0.01, "timeout_s": 0.4}
THERMO, SUMMARY = "/materials/thermo/", "/materials/summary/"


def number(material_id: str) -> int:
    """The number behind an id in digits or in letters: the database answers to both."""
    return int(AlphaID(material_id))


@dataclass
class Project:
    """What the server knows and does.

    ``faults`` is a list of actions, each used up by one request for documents: ``"429:SECONDS"``, a status
    ("500"), "cut" (half of the body), "cut-chunk" (no length, half of the body), "short" (a document missing),
    "html" (no JSON), "slow:SECONDS", "reset" (the connection drops), "die" (the whole server stops), "" (none).
    """

    documents: list[dict]
    key: str = KEY
    db_version: str = "2025.09.25"
    faults: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    on_request: object = None
    refusal: int = 401
    port: int = 0  # the same from one serving to the next

    @property
    def searches(self) -> list[dict[str, str]]:
        """Parameters of the requests for thermodynamic documents, in order."""
        return [query for path, query in self.requests if path == THERMO]


@contextmanager
def serving(project: Project):
    """Run the project; yields the endpoint."""
    server = _Server(("127.0.0.1", project.port), _Handler)
    project.port = server.server_address[1]
    server.project, server.lock = project, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{project.port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Say nothing when the client goes away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        project, address = self.server.project, urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        with self.server.lock:
            project.requests.append((address.path, query))
            project.times.append(time.monotonic())
            searched = address.path == THERMO
            fault = project.faults.pop(0) if searched and project.faults else ""
        if project.on_request is not None:
            project.on_request(project)
        if address.path == "/heartbeat":
            version = {"version": "0.87.3", "db_version": project.db_version}
            self.tell(200, {**version, "access_controlled_batch_ids": ["gnome_r2scan_statics"]})
        elif address.path not in (THERMO, SUMMARY):
            self.tell(404, {"detail": "Not Found"})
        elif self.headers.get("x-api-key") != project.key:
            self.tell(project.refusal, {"message": "Invalid authentication credentials"})
        elif address.path == SUMMARY:
            self.tell(200, {"data": [], "meta": {"total_doc": 0}})
        else:
            self.search(project, query, fault)

    def search(self, project, query, fault):
        name, _, value = fault.partition(":")
        if name == "slow":
            time.sleep(float(value))
        if name == "die":
            threading.Thread(target=self.server.shutdown, daemon=True).start()
            self.server.socket.close()
        if name in ("reset", "die"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if name == "429":
            self.tell(429, {"message": "API rate limit exceeded"}, {"Retry-After": value})
            return
        if name.isdigit():
            self.tell(int(name), {"detail": f"fault {name}"})
            return
        try:
            found = [d for d in project.documents if matches(d, query)]
        except ValueError as error:
            self.tell(400, {"detail": str(error)})
            return
        skip, limit = int(query.get("_skip", 0)), int(query.get("_limit", 100))
        if limit > 1000:
            self.tell(422, {"detail": [{"loc": ["query", "_limit"], "msg": "at most 1000"}]})
            return
        names = query["_fields"].split(",") if "_fields" in query else None
        page = [
            {key: value for key, value in document.items() if names is None or key in names}
            for document in found[skip : skip + limit]
        ]
        if name == "short":
            page.pop()
        body = {"data": page, "meta": {"api_version": "0.87.3", "total_doc": len(found), "max_limit": 1000}}
        self.tell(200, "<html>gateway</html>" if name == "html" else body, fault=name)

    def tell(self, status, body, headers=None, fault=""):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if fault != "cut-chunk":
            self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if fault.startswith("cut"):
            content = content[: len(content) // 2]
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)


def matches(document: dict, query: dict[str, str]) -> bool:
    """Whether a search finds a document: the server's own rules."""
    system = set(document["chemsys"].split("-"))
    for name, value in query.items():
        listed = value.split(",")
        if name == "thermo_types":
            good = document["thermo_type"] in listed
        elif name == "material_ids":
            good = number(document["material_id"]) in map(number, listed)
        elif name == "chemsys":
            if "*" in value and len(listed) > 1:
                raise ValueError("Wild cards only supported for single chemsys queries.")
            wanted = [one.split("-") for one in listed]
            if "*" in value:
                good = len(system) == len(wanted[0]) and {e for e in wanted[0] if e != "*"} <= system
            else:
                good = any(system == set(one) for one in wanted)
        elif name == "formula":
            good = document["formula_pretty"] in [Composition(one).reduced_formula for one in listed]
        elif name == "energy_above_hull_min":
            good = document["energy_above_hull"] >= float(value)
        elif name == "energy_above_hull_max":
            good = document["energy_above_hull"] <= float(value)
        elif name.startswith("_"):
            good = True
        else:
            raise ValueError(f"unknown parameter {name}")
        if not good:
            return False
    return True


def document_of(entry: dict, **changes) -> dict:
    """Make the thermodynamic document that the database would keep for an entry."""
    run_type, atoms = entry["parameters"]["run_type"], len(entry["structure"]["sites"])
    name = entry["entry_id"]
    composition = Composition(entry["composition"])
    document = {
        "material_id": name,
        "thermo_type": "GGA_GGA+U",
        "energy_type": run_type,
        "entry_types": [run_type],
        "entries": {run_type: {**entry, "entry_id": f"{name}-{run_type}"}},
        "uncorrected_energy_per_atom": entry["energy"] / atoms,
        "energy_per_atom": (entry["energy"] + entry.get("correction", 0.0)) / atoms,
        "energy_above_hull": 0.0,
        "nsites": atoms,
        "volume": float(Lattice(entry["structure"]["lattice"]["matrix"]).volume),
        "chemsys": composition.chemical_system,
        "formula_pretty": composition.reduced_formula,
        "origins": [
            {"name": "energy", "task_id": entry["data"].get("task_id"), "last_updated": "2025-01-01"}
        ],
        "builder_meta": {"license": "BY-C", "database_version": "2025.09.25"},
        "symmetry": {"number": 225},
    }
    return {**document, **changes}


def entry(name: str, system: str, n_each: int = 1, *, run_type: str = "GGA", correction: float = 0.0) -> dict:
    """Make an entry by hand: a cubic cell with ``n_each`` atoms of every element in a row."""
    symbols = [symbol for symbol in system.split("-") for _ in range(n_each)]
    n, edge = len(symbols), 2.5 * len(symbols)
    number = int(name.split("-")[1])
    energy = -4.0 * n - 1e-4 * number
    matrix = [[edge, 0.0, 0.0], [0.0, 2.5, 0.0], [0.0, 0.0, 2.5]]
    sites = [
        {
            "species": [{"element": symbol, "occu": 1}],
            "abc": [k / n, 0.0, 0.0],
            "xyz": [2.5 * k, 0.0, 0.0],
            "label": symbol,
            "properties": {},
        }
        for k, symbol in enumerate(symbols)
    ]
    titles = [
        {"titel": f"PAW_PBE {'Yb_3' if s == 'Yb' else s} 06Sep2000", "hash": "0"} for s in system.split("-")
    ]
    return {
        "@module": "pymatgen.entries.computed_entries",
        "@class": "ComputedStructureEntry",
        "energy": energy,
        "composition": dict.fromkeys(system.split("-"), float(n_each)),
        "entry_id": name,
        "correction": correction,
        "energy_adjustments": [],
        "parameters": {"run_type": run_type, "potcar_spec": titles, "is_hubbard": run_type == "GGA+U", "hubbards": {}},
        "data": {"oxide_type": "oxide", "task_id": f"mp-9{number}", "run_type": run_type, "material_id": name},
        "structure": {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {
                "matrix": matrix, "a": edge, "b": 2.5, "c": 2.5, "alpha": 90.0, "beta": 90.0, "gamma": 90.0,
                "volume": edge * 6.25, "pbc": [True, True, True],
            },
            "sites": sites,
        },
    }  # fmt: skip


def library() -> list[dict]:
    """Make sixty documents: twenty of Li-Fe-O, its subsystems, larger systems around it, and a few others."""
    counter, documents = itertools.count(1), []

    def add(system, times=1, **changes):
        for k in range(times):
            name = f"mp-{next(counter)}"
            run_type = "GGA+U" if "Fe" in system and "O" in system else "GGA"
            documents.append(
                document_of(
                    entry(name, system, 1 + k % 3, run_type=run_type, correction=-0.7),
                    **{"energy_above_hull": 0.01 * k, **changes},
                )
            )

    add("Fe-Li-O", 20)
    for system in ("Fe", "Li", "O", "Fe-Li", "Fe-O", "Li-O"):
        add(system, 3)
    add("Fe-Li-O-P", 6)
    add("Fe-Li-O-P-S", 2)
    add("Cl-Na", 7)
    add("O-Yb", 2)
    add("Cl-Na", 2, thermo_type="R2SCAN")
    add("Cl-Cs", 2, thermo_type="GGA_GGA+U_R2SCAN")
    add("K", 1, builder_meta={"license": "BY-NC"})
    return documents


def entries_of(path) -> list[dict]:
    """Entries of a file that a download wrote."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def ids(path) -> list[str]:
    """Ids of its materials, in order."""
    return [one["data"]["material_id"] for one in entries_of(path)]
