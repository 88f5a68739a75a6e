"""Help that costs nothing; errors in one sentence; exit codes."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest

from mace_bounds.cli.app import COMMANDS as REGISTERED
from mace_bounds.cli.app import DEBUG
from mace_bounds.errors import HeadError

COMMANDS = (
    "score", "download", "features", "merge", "fit", "audit", "build", "compare", "plot", "models", "heads",
)  # fmt: skip


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    listed = result.stdout.split(" Commands ")[1].splitlines()
    rows = [line.split()[1] for line in listed if line.startswith("│ ") and line[2].isalpha()]
    assert rows == list(COMMANDS)


def test_help_imports_nothing_heavy():
    heavy = ["numpy", "torch", "pandas", "scipy", "ase", "pymatgen", "matplotlib", "mace"]
    script = "import sys, atexit; from mace_bounds.cli import main; sys.argv = ['mace-bounds', '--help']\n"
    script += f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_list_of_commands_has_the_first_sentence_of_each():
    for name, (module, sentence) in REGISTERED.items():
        function = getattr(import_module(f"mace_bounds.cli.{module}"), name)
        assert function.__doc__.splitlines()[0] == sentence


def test_version(run):
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"mace-bounds {version('mace-bounds')}"


def test_wrong_use_is_exit_code_2(run):
    assert run("score").exit_code == 2
    assert run("no-such-command").exit_code == 2


def test_no_head_for_the_default_model_is_told_at_once(shell, crystal_file, tmp_path):
    result = shell("score", crystal_file, env={"MACE_BOUNDS_HEADS": str(tmp_path)})
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "--model mini" in result.stderr
    assert "mace-bounds build OUT --model medium-mpa-0" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (HeadError("a is wrong; do b."), 2, "error: a is wrong; do b.\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume\n"),
        (ValueError("two\nlines"), 70, "error: a fault in mace-bounds (ValueError: two lines); set"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: a file cannot be read or written: "),
        (MemoryError(), 70, "error: out of memory; lower --memory or --max-atoms.\n"),
    ],
)
def test_errors_become_one_line_and_a_code(run, monkeypatch, error, code, text):
    def fail():
        raise error

    monkeypatch.setattr("mace_bounds.bounds.list_heads", fail)
    result = run("heads")
    assert result.exit_code == code
    assert result.stderr.startswith(text)
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv(DEBUG, "1")
    if isinstance(error, Exception):
        assert run("heads").exception is error


def test_a_reader_that_leaves_is_no_fault():
    program = f'"{sys.executable}" -c "from mace_bounds.cli import main; main()"'
    command = f'{program} --help | true; echo "${{PIPESTATUS[0]}}"'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in result.stderr
    assert result.stdout.strip() in ("0", "1", "141")


def test_ctrl_c_stops_a_run_with_one_sentence(labelled_file, pair, tmp_path):
    script = "import time, mace_bounds.backbones as f\n"
    script += "def slow(*a, **k):\n    print('ready', flush=True); time.sleep(60)\n"
    script += "f.load_model = slow\nfrom mace_bounds.cli import main; main()"
    arguments = [sys.executable, "-c", script, "features", str(labelled_file), str(tmp_path / "s"), *pair[:2]]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # a test run that was itself started in the background of a shell passes on that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told == "stopped; run the same command again to resume\n"
