"""Send cases that schemathesis makes of the description of the interface to a service: none may end in a fault.

    python -m venv throwaway && throwaway/bin/pip install schemathesis
    python scripts/schema_study.py throwaway/bin/schemathesis

503 is an answer here (a service that is busy says so), so that only 500 counts; the log must hold no fault either.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import httpx

from load_study import service


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("schemathesis")
    parser.add_argument("--examples", type=int, default=400, help="for each route and kind of case")
    parser.add_argument("--checks", default="not_a_server_error")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as state,
        service("--state", state, "--max-slowdown", "1e6") as (_, url),
    ):
        command = [
            str(Path(options.schemathesis).absolute()),
            "run",
            f"{url}/openapi.json",
            "--checks",
            options.checks,
        ]
        command += [
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            str(options.examples),
            "--request-timeout",
            "120",
        ]
        code = subprocess.run([*command, "--continue-on-failure"], check=False, cwd=state).returncode
        counts = dict(re.findall(r"requests_total\{(.*?)\} ([\d.]+)", httpx.get(f"{url}/metrics").text))
        ready = httpx.get(f"{url}/readyz").status_code
    asked = int(sum(float(n) for n in counts.values()))
    faults = {what: n for what, n in counts.items() if 'status="500"' in what}
    print(f"{asked} requests, faults: {faults or 'none'}, ready at the end: {ready == 200}")
    raise SystemExit(code or bool(faults) or ready != 200)


if __name__ == "__main__":
    main()
