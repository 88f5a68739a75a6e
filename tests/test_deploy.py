"""The files for containers and systemd start commands and options that there are, as a user without rights."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "mace-bounds.service").read_text(encoding="utf-8")


def check_command(words):
    from mace_bounds.cli.app import load_command

    assert words[0] == "serve"
    options = {option for p in load_command("serve").params for option in p.opts}
    assert {word for word in words if word.startswith("--")} <= options


def instructions(name):
    text = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.M)


def test_the_container_serves_as_a_user_with_keys_and_looks_after_itself():
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["mace-bounds"]
    words = json.loads(command)
    check_command(words)
    assert words[words.index("--host") + 1] == "0.0.0.0"
    assert "--keys" in words
    assert instructions("USER") == ["bounds"]
    (health,) = instructions("HEALTHCHECK")
    assert "/readyz" in health
    for source in [word for line in instructions("COPY") for word in line.split()[:-1]]:
        assert (ROOT / source).exists()
    for line in re.findall(r"mace-bounds (serve .*)$", DOCKERFILE, re.M):
        check_command(shlex.split(line))


def test_compose_only_listens_here():
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_unit_starts_what_there_is():
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.M)
    program, *words = shlex.split(command)
    assert Path(program).name == "mace-bounds"
    check_command(words)
    assert "DynamicUser=yes" in UNIT


def test_the_unit_is_one_for_systemd(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    program = tmp_path / "mace-bounds"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "mace-bounds.service"
    unit.write_text(UNIT.replace("/opt/mace-bounds/bin/mace-bounds", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, str(unit) in done.stderr) == (0, False), done.stderr
