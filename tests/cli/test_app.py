"""Help that costs nothing; errors in one sentence; exit codes."""

import contextlib
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
from importlib import import_module

import pytest

from helpers import forked
from mace_bounds.cli.app import COMMANDS as REGISTERED
from mace_bounds.cli.app import DEBUG, load_command
from mace_bounds.errors import HeadError

COMMANDS = (
    "score", "explain", "differences", "hull", "propagate", "download", "features", "merge", "fit", "fit-material",
    "calibrate", "audit", "build", "compare", "plot", "serve", "mcp", "models", "heads",
)  # fmt: skip


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    listed = result.stdout.split("Commands:")[1].split("Examples:")[0].splitlines()
    rows = [line.split()[0] for line in listed if line.startswith("  ") and line[2].isalpha()]
    assert rows == list(COMMANDS)


def test_help_imports_nothing_heavy():
    heavy = ["numpy", "torch", "pandas", "scipy", "ase", "pymatgen", "matplotlib", "mace"]
    script = "import sys, atexit; from mace_bounds.cli import main; sys.argv = ['mace-bounds', '--help']\n"
    script += f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    assert run(command, "-h").stdout == run(command, "--help").stdout != ""


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_every_option_whole_and_an_example(command, columns):
    made = load_command(command)
    context = made.make_context(command, [], resilient_parsing=True, terminal_width=columns)
    help_text, examples = made.get_help(context).split("\nExamples:\n")
    assert max(map(len, help_text.splitlines())) <= columns
    for parameter in made.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_text)
    assert "…" not in help_text
    assert examples.splitlines()[0].startswith(f"  mace-bounds {command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_options_that_are_there(command):
    known = {option for p in load_command(command).params for option in (*p.opts, *p.secondary_opts)}
    for example in REGISTERED[command].examples:
        words = shlex.split(example)
        assert words[0] == command
        assert {word for word in words if word.startswith("--")} <= known


def test_the_list_of_commands_has_the_first_sentence_of_each():
    for name, about in REGISTERED.items():
        function = getattr(import_module(f"mace_bounds.cli.{about.module}"), name.replace("-", "_"))
        assert function.__doc__.splitlines()[0] == about.sentence


def test_no_arguments_are_answered_with_the_help(run):
    result = run()
    assert result.exit_code == 2
    assert result.stdout == run("--help").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scroe"], "error: there is no command 'scroe'; did you mean 'score'? See mace-bounds --help\n"),
        (["score"], "error: missing argument 'FILE...'; see mace-bounds score --help\n"),
        (["score", "x", "--\x1b[2J"], "error: no such option: --\\x1b[2J; see mace-bounds score --help\n"),
        (["fit", "s", "h", "--seed", "[/x]"], "error: invalid value for '--seed': "),
    ],
)
def test_wrong_use_is_one_sentence(run, words, told):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1


def test_completion_is_offered(shell):
    environment = {
        "_MACE_BOUNDS_COMPLETE": "complete_bash",
        "COMP_WORDS": "mace-bounds sc",
        "COMP_CWORD": "1",
    }
    assert shell(env=environment).stdout.split() == ["score"]


def test_version(run):
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"mace-bounds {version('mace-bounds')}"


def test_wrong_use_is_exit_code_2(run):
    assert run("score").exit_code == 2
    assert run("no-such-command").exit_code == 2


def test_no_head_for_a_model_is_told_at_once(shell, crystal_file, tmp_path):
    result = shell(
        "score", crystal_file, "--model", "medium-omat-0", env={"MACE_BOUNDS_HEADS": str(tmp_path)}
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "--model mini" in result.stderr
    assert "mace-bounds build OUT --model medium-omat-0" in result.stderr


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


@pytest.mark.parametrize(
    ("line", "codes", "told"),
    [
        ("heads | true", ("0", "1", "141"), ""),
        ("heads >&-", ("0",), None),
        ("heads 2>&-", ("0",), ""),
        ("heads > /dev/full", ("2",), None),
    ],
)
def test_streams_that_are_closed_or_full_are_no_fault(line, codes, told):
    command, *pipe = line.split(" | ")
    program = f'"{sys.executable}" -m mace_bounds'
    whole = " | ".join([f"{program} {command}", *pipe])
    result = subprocess.run(
        ["bash", "-c", f'{whole}; echo "${{PIPESTATUS[0]}}"'], capture_output=True, text=True, check=True
    )
    assert "Traceback" not in result.stderr
    assert "fault" not in result.stderr
    assert result.stdout.splitlines()[-1] in codes
    if told:
        assert result.stderr.startswith(told)


def test_a_closed_standard_input_is_a_structure_that_does_not_read():
    code = "import os, sys; os.close(0); sys.stdin = None; from mace_bounds.cli import main; main()"
    result = forked.run(forked.python, code, "score", "-", "--model", "mini")
    assert result.returncode == 1
    assert result.stderr.startswith("stdin: ")
    assert "Traceback" not in result.stderr


def test_a_real_terminal_of_80_columns_gets_two_lines_a_crystal(pair, labelled_file, monkeypatch):
    """Sizes come from the terminal itself, not from the environment."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    call, environment = ("score", labelled_file, *pair), {"TERM": "xterm", "NO_COLOR": "1"}
    with forked.start(forked.command, *call, env=environment, stdout=os.ttyname(theirs)) as process:
        shown = os.read(ours, 65536)
        os.close(theirs)
        with contextlib.suppress(OSError):  # how Linux ends the reading side
            while part := os.read(ours, 65536):
                shown += part
        assert process.wait(timeout=60) == 0
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert max(map(len, lines)) <= 80
    at = next(k for k, line in enumerate(lines) if line.startswith("made-0007"))
    assert re.fullmatch(
        r" +\d+ +-?\d+\.\d{3} +(\S+ to \S+ +[+-]\d+ to [+-]\d+|none of use) +[+-]\d+", lines[at + 1]
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_stop_a_run_with_one_sentence(labelled_file, pair, tmp_path, number, code):
    script = "import time, mace_bounds.features.settings as f\n"
    script += "def slow(*a, **k):\n    print('ready', flush=True); time.sleep(60)\n"
    script += "f.load_model = slow\nfrom mace_bounds.cli import main; main()"
    with forked.start(forked.python, script, "features", labelled_file, tmp_path / "s", *pair[:2]) as process:
        process.wait_until(lambda: process.stdout == "ready\n")
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr == "stopped; run the same command again to resume\n"
