"""The shell scripts: syntax, and which torch they choose, with stand-ins for pip, nvidia-smi and uname."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(TORCH,) = [text for text in PROJECT["dependencies"] if text.startswith("torch>")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A repository with setup.sh alone, and a function that runs it on a machine as described."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tools = tmp_path / "tools"

    def run(
        *arguments: str,
        torch: str | None = "2.13.0",
        gpu: str = "none",
        platform: str = "Linux x86_64",
        bare_python: str | None = None,
    ) -> subprocess.CompletedProcess:
        report = json.dumps({"install": [{"metadata": {"name": "torch", "version": torch}}]})
        answer = f"echo '{report}'" if torch else "echo 'ERROR: No matching distribution' >&2; exit 1"
        log = tmp_path / "calls.log"
        fake = (
            "#!/usr/bin/env bash\n"
            f'if [ "$1" = -c ]; then case "$2" in *m.version*) exit 1;; esac; exec "{sys.executable}" "$@"; fi\n'
            f'echo "$@" >> "{log}"\n'
            f'case "$*" in *--dry-run*) {answer};; esac\n'
        )
        executable(tmp_path / ("spare" if bare_python else ".venv/bin/python"), fake)
        system, kind = platform.split()
        executable(
            tools / "uname", f'#!/bin/sh\nif [ "$1" = -s ]; then echo {system}; else echo {kind}; fi\n'
        )
        smi = tools / "nvidia-smi"
        smi.unlink(missing_ok=True)
        if gpu != "none":
            executable(smi, f"#!/bin/sh\nexit {0 if gpu == 'works' else 9}\n")
        log.write_text("")
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": bare_python or ""}
        done = subprocess.run(
            ["bash", "scripts/setup.sh", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        done.calls = log.read_text().splitlines()
        return done

    return run


@pytest.mark.parametrize(
    "described, plan",
    [
        ({"torch": "2.13.0+cpu"}, "pip"),
        ({"torch": "2.13.0"}, "uv"),
        ({"torch": "2.13.0+cu130"}, "uv"),
        ({"torch": "2.13.0", "gpu": "works"}, "pip"),
        ({"torch": "2.13.0", "gpu": "broken"}, "uv"),
        ({"torch": "2.13.0", "platform": "Darwin arm64"}, "pip"),
        ({"torch": "2.13.0", "platform": "Linux aarch64"}, "pip"),
    ],
)
def test_torch_plan(machine, described, plan):
    if "gpu" not in described and shutil.which("nvidia-smi"):
        described = {**described, "gpu": "broken"}  # hide the GPU of the machine that runs the tests
    done = machine("torch-plan", **described)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == plan


def test_plan_asks_pip_without_installing(machine):
    done = machine("torch-plan", gpu="broken")
    assert done.calls == [f"-m pip install --dry-run --no-deps --ignore-installed -qq --report - {TORCH}"]


def test_without_cuda_torch_comes_from_uv_before_the_package(machine):
    done = machine("demo", gpu="broken")
    assert done.returncode == 0, done.stderr
    installs = [call for call in done.calls if "--dry-run" not in call and "--version" not in call]
    assert installs == [
        "-m pip install -qq uv",
        f"-m uv pip install --python .venv/bin/python --torch-backend=cpu {TORCH}",
        "-m pip install -qq --editable .[mp]",
    ]


def test_cpu_build_comes_from_pip_before_the_package(machine):
    done = machine("test", torch="2.13.0+cpu", gpu="broken")
    assert done.returncode == 0, done.stderr
    installs = [call for call in done.calls if "--dry-run" not in call and "--version" not in call]
    assert installs == [
        f"-m pip install -qq {TORCH}",
        "-m pip install -qq pip>=25.1",
        "-m pip install -qq --editable .[mp,dask,compare,serve,client,mcp,chgnet] --group dev",
    ]


def test_no_torch_is_one_clear_sentence(machine):
    done = machine("demo", torch=None, gpu="broken")
    assert done.returncode == 1
    assert f"stopped: pip found no {TORCH} for this Python" in done.stderr
    assert not [call for call in done.calls if "--editable" in call]


@pytest.mark.parametrize("apt", [0, 100])
def test_python_without_venv_module_gets_it_from_apt(machine, tmp_path, apt):
    tools, log, there = tmp_path / "tools", tmp_path / "calls.log", tmp_path / "venv-module"
    executable(tools / "sudo", '#!/bin/sh\nexec "$@"\n')
    executable(tools / "apt-get", f'#!/bin/sh\necho "apt-get $@" >> "{log}"\ntouch "{there}"\nexit {apt}\n')
    executable(
        tools / "python-bare",
        f"""#!/usr/bin/env bash
case "$*" in
*ensurepip*) test -e "{there}" ;;
"-m venv"*) mkdir -p .venv/bin && mv spare .venv/bin/python ;;
*) exec "{sys.executable}" "$@" ;;
esac
""",
    )
    done = machine("demo", torch="2.13.0+cpu", gpu="broken", bare_python="python-bare")
    installed = [call.split()[-1] for call in done.calls if call.startswith("apt-get install")]
    assert len(installed) == 1
    assert installed[0].endswith("-venv")
    if apt == 0:
        assert done.returncode == 0, done.stderr
        assert done.calls[-1] == "-m pip install -qq --editable .[mp]"
    else:
        assert done.returncode == 1
        assert f"stopped: apt-get could not install {installed[0]}" in done.stderr


def test_unknown_word_is_refused(machine):
    done = machine("deploy")
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "stopped: there is no set-up called deploy; choose demo, test or torch-plan."
    )


def test_demo_uses_only_commands_that_exist():
    from mace_bounds.cli.app import COMMANDS

    lines = (ROOT / "scripts" / "demo.sh").read_text().splitlines()
    used = [line.split()[2] for line in lines if line.startswith("run mace-bounds ")]
    assert used == ["score", "fit", "audit"]
    assert set(used) <= set(COMMANDS)
    (store,) = [line.partition("=")[2] for line in lines if line.startswith("store=")]
    assert (ROOT / store).is_dir()
