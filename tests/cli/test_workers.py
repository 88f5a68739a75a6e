"""``features`` by workers and in parts, ``merge``: from the command line."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from helpers import forked
from helpers.store_bytes import digests

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_features.sh"


@pytest.fixture(scope="module")
def options(tiny_model_folder):
    """200 structures in seven shards."""
    return ["--model", str(tiny_model_folder), "--shard-rows", "32"]


@pytest.fixture(scope="module")
def whole(labelled_file, options, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "store"
    done = run("features", labelled_file, out, *options, "--workers", 1)
    assert done.exit_code == 0
    return out


def test_array_of_jobs_in_one_folder(labelled_file, options, whole, tmp_path, run):
    """Two parts; the second as the job script says, run by bash as SLURM would, with two worker processes."""
    out = tmp_path / "store"
    first = run("features", labelled_file, out, *options, "--shard", "1/2", "--workers", 1)
    assert first.exit_code == 0
    assert f"mace-bounds merge {out}" in first.stderr
    early = run("merge", out)
    assert early.exit_code == 2
    assert "missing are 96 (made-0032, " in early.stderr
    assert "--shard 2/2 again" in early.stderr
    program = tmp_path / "bin" / "mace-bounds"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "2"}
    job = subprocess.run(
        ["bash", str(SCRIPT), str(labelled_file), str(out), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **slurm, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        check=True,
    )
    forked.warm()
    second = run(*job.stdout.splitlines())
    assert second.exit_code == 0, second.stderr
    summary = json.loads((tmp_path / "store.part-2-of-2.summary.json").read_text())
    assert summary["counts"] == {"structures": 96, "scored": 96, "failed": 0}
    assert summary["settings"]["part"] == "2/2"
    joined = run("merge", out)
    assert joined.exit_code == 0
    assert joined.stdout.startswith("200 structures with ")
    assert digests(out) == digests(whole)


WITH_ANY_MODEL = """
import mace_bounds.features.settings
from helpers.pair_backbone import Patient
mace_bounds.features.settings.load_model = lambda *_, **__: Patient()
from mace_bounds.cli import main
main()
"""


def test_interrupted_runs_leave_no_process_and_finish_to_the_same_bytes(labelled_file, tmp_path):
    """Ctrl-C in the middle, then SIGKILL; the workers of two processes are gone at once, and so are temporary files."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    line = (forked.python, WITH_ANY_MODEL, "features", labelled_file)
    options = ("--model", "pair", "--shard-rows", 2, "--workers")
    made = forked.run(*line, whole, *options, 1)
    assert made.returncode == 0, made.stderr
    stopped = "stopped; run the same command again to resume\n"
    for number, code, told in ((signal.SIGINT, 130, stopped), (signal.SIGKILL, -signal.SIGKILL, "")):
        before = len(list(broken.glob("shard-*")))
        with forked.start(*line, broken, *options, 2) as process:
            process.wait_until(lambda before=before: len(list(broken.glob("shard-*"))) > before)
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2
            process.send_signal(number)
            assert process.wait(20) == code
            # a slow run tells its progress too
            assert re.sub(r"\d+ of 200 structures, .*\n", "", process.stderr) == told
        assert psutil.wait_procs(children, timeout=10)[1] == []
        assert before < len(list(broken.glob("shard-*"))) < 100
    assert not json.loads((broken / "manifest.json").read_text())["complete"]
    assert forked.run(*line, broken, *options, 1).returncode == 0
    assert digests(broken) == digests(whole)


def test_job_script_tells_slurm_what_it_needs():
    text = SCRIPT.read_text()
    directives = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert directives == ["--job-name=mace-bounds", "--cpus-per-task=16", "--mem=32G", "--time=04:00:00"]
    first_command = next(k for k, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert all(
        "#SBATCH" not in line for line in text.splitlines()[first_command:]
    )  # SLURM reads none after it


def test_audit_takes_workers(labelled_file, pair, tmp_path, run):
    arguments = ["--shard-rows", 100, "--no-plots", "--workers", 2, "--json"]
    done = run("audit", labelled_file, tmp_path / "out", *pair, *arguments)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["scored"] == 200


@pytest.mark.parametrize("text", ["2", "0/4", "5/4", "a/4", "1/4/2", "-1/4"])
def test_parts_that_make_no_sense(run, labelled_file, tmp_path, text):
    done = run("features", labelled_file, tmp_path / "s", "--shard", text)
    assert done.exit_code == 2
    assert "is not I/N with I from 1 to N" in " ".join(done.stderr.replace("│", " ").split())


def test_no_scheduler_is_exit_code_2(run, labelled_file, options, tmp_path, monkeypatch):
    monkeypatch.setattr("mace_bounds.features.engines.dask.SECONDS_TO_CONNECT", 0.5)
    done = run("features", labelled_file, tmp_path / "s", *options, "--scheduler", "tcp://127.0.0.1:9")
    assert done.exit_code == 2
    assert done.stderr.endswith("answers at tcp://127.0.0.1:9 (OSError); start one, or check the address.\n")
