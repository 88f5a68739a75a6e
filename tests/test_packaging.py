"""What a user gets: the wheel's files, what it declares, and that everything imported is declared."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from helpers import forked

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mace_bounds"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the tracked folders, without network."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").write_text("")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        "dist",
        ".",
    ]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (path,) = (copy / "dist").glob("mace_bounds-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_file_of_the_package(wheel):
    held = {name for name in wheel.namelist() if name.startswith("mace_bounds/")}
    files = {
        f"mace_bounds/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == files


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "__init__.pyi",
        "data/models/mini/weights.safetensors",
        "data/heads/mini/head.safetensors",
        "data/examples/NaCl.cif",
        "data/heads/mace-mpa-0-published/head.safetensors",
        "data/stores/mace-mpa-0-published/manifest.json",
    ],
)
def test_wheel_holds(wheel, name):
    assert f"mace_bounds/{name}" in wheel.namelist()


def test_wheel_holds_nothing_else(wheel):
    others = {name.split("/")[0] for name in wheel.namelist()} - {"mace_bounds"}
    assert {re.sub(r"-[0-9.]+\.dist-info$", "", name) for name in others} == {"mace_bounds"}


def test_metadata(wheel):
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(path).decode())
    assert (metadata["Name"], metadata["Version"]) == ("mace-bounds", CONFIG["project"]["version"])
    assert set(metadata.get_all("Provides-Extra")) == {
        "mp",
        "dask",
        "compare",
        "serve",
        "client",
        "mcp",
        "chgnet",
    }
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_what_is_imported_is_declared():
    project = CONFIG["project"]
    declared = {name_of(r) for r in project["dependencies"]}
    declared |= {name_of(r) for extra in project["optional-dependencies"].values() for r in extra}
    imported = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    owners = packages_distributions()
    undeclared = {
        module
        for module in imported - set(sys.stdlib_module_names) - {"mace_bounds"}
        if not {name.lower().replace("_", "-") for name in owners.get(module, [module])} & declared
    }
    assert not undeclared


def test_what_is_declared_is_imported():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    modules = {"mace-torch": "mace", "mp-api": "mp_api", "emmet-core": "emmet", "lazy-loader": "lazy_loader"}
    modules |= {"prometheus-client": "prometheus_client", "scikit-learn": "sklearn"}
    project = CONFIG["project"]
    extras = [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in [*project["dependencies"], *extras]:
        module = modules.get(name_of(requirement), name_of(requirement))
        # what distributed runs on, what starlette reads forms with, a file of weights whose package is not imported
        if module not in ("dask", "python-multipart", "chgnet"):
            assert re.search(rf"^\s*(import|from) {module}\b", text, re.MULTILINE), requirement


def test_torch_is_limited_in_one_place():
    others = [*ROOT.glob("scripts/*.sh"), *ROOT.glob(".github/workflows/*.yml")]
    assert not [path for path in others if re.search(r"torch[=<>]=?\d", path.read_text(encoding="utf-8"))]


WITHOUT_EXTRAS = """
import sys
for name in [name for name in sys.modules if name.startswith("mace_bounds")]:
    del sys.modules[name]  # imported anew, without what is not there
for name in ("mp_api", "emmet", "requests", "urllib3", "distributed", "popsregression", "fastapi", "sklearn"):
    sys.modules[name] = None  # importing it raises ImportError
from mace_bounds.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (["score", "NaCl.cif", "--model", "mini", "--format", "json"], 0, '"energy_model_ev"'),
        (["download", "mp:Li-O", "out.jsonl"], 2, 'pip install "mace-bounds[mp]"'),
        (["serve", "--model", "mini"], 2, 'pip install "mace-bounds[serve]"'),
    ],
    ids=["score", "download", "serve"],
)
def test_extras_are_needed_only_where_they_are_used(arguments, code, text, tmp_path):
    shutil.copy(SOURCE / "data" / "examples" / "NaCl.cif", tmp_path)
    done = forked.run(forked.python, WITHOUT_EXTRAS, *arguments, cwd=tmp_path)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done.stderr
