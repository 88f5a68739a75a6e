"""The check of an accelerator: on this machine's CPU, with tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import forked

SCRIPT = Path(__file__).parents[2] / "scripts" / "device_check.py"


@pytest.mark.slow
def test_one_command_checks_and_times_and_ends_in_time():
    sizes = ("--device", "cpu", "--tiny", "--crystals", "3", "--rounds", "1")
    done = forked.run(forked.script, SCRIPT, *sizes)
    assert done.stdout.count("\n") == 1
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["failed"]
    assert report["passed"]
    assert len(report["accuracy"]) == 2 * 2 * 2 * 4  # models, precisions, forwards, quantities
    assert all(row["relative_error"] < 1e-10 for row in report["accuracy"] if row["dtype"] == "float64")
    rates = {(row["model"], row["by"], row["dtype"]): row["atoms_per_s"] for row in report["speed"]}
    wanted = [
        (m, by, d)
        for m in ("mini", "mpa-0 architecture")
        for by in ("mace-bounds", "mace")
        for d in ("float64", "float32")
    ]
    assert all(rates[key] > 0 for key in wanted)
    same = {
        row["by"]: row["energy_sum_ev"]
        for row in report["speed"]
        if row["model"] == "mini" and row["dtype"] == "float64"
    }
    assert same["mace"] == pytest.approx(same["mace-bounds"], rel=1e-9)
    assert all("cuequivariance" in name for name in report["failed"])


@pytest.mark.slow
def test_what_does_not_end_is_reported_as_failed():
    done = forked.run(forked.script, SCRIPT, "--device", "cpu", "--tiny", "--seconds", "0.5")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert not report["passed"]
    assert report["failed"]
