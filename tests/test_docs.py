"""Every block of code in README, docs and CONTRIBUTING is run, or says why not and still names what exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

import pytest
import typer
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<mark>```+)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=mark)$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]*?) -->\s*\Z")
RUN = {"python", "sh", "console"}
OTHER = {"bash", "curl", "pip", "pipx", "export", "sbatch", "uvx"}
"""First words of lines that may stand in blocks which are not run, beside mace-bounds."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    body: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Command lines in words, comments and continuations resolved."""
        if self.language not in ("sh", "console"):
            return []
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


@cache
def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        reason = NOT_RUN.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match["info"].strip(), match["body"], reason and reason["reason"]))
    return found


ALL = [block for page in PAGES for block in blocks(page)]
KEPT = [block for block in ALL if block.reason is not None]


@cache
def application() -> dict[str, set[str]]:
    """Return the options of every command."""
    from mace_bounds.cli.app import COMMANDS, load_command

    return {
        name: {option for p in load_command(name).params for option in (*p.opts, *p.secondary_opts)}
        for name in COMMANDS
    }


def of_the_program() -> set[str]:
    """Return the options of the program itself, before any command."""
    from mace_bounds.cli.app import app

    program = typer.main.get_command(app)
    return {option for p in program.params for option in p.opts} | {"--help"}


def check_exists(words: list[str]) -> None:
    """Check that a command line names a command, options and scripts that are there."""
    program, *rest = words
    if program == "mace-bounds":
        name, *arguments = rest
        if name in of_the_program():
            return
        assert name in application()
        options = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
        assert options <= application()[name] | {"--help"}
    elif program in ("bash", "sbatch"):
        script = next(word for word in rest if not word.startswith("-"))
        assert (ROOT / script).is_file()
        if program == "sbatch":
            check_exists(["mace-bounds", "features", *rest[rest.index(script) + 1 :]])
    else:
        assert program in OTHER


@pytest.mark.parametrize("block", ALL, ids=str)
def test_languages_are_known(block):
    assert block.language in RUN | {"text", "pycon"}
    if block.language == "pycon" or block.reason is not None:
        assert block.language in RUN


@pytest.mark.parametrize("block", KEPT, ids=str)
def test_what_is_not_run_says_why_and_exists(block):
    assert len(block.reason.split()) >= 3
    for words in block.commands:
        check_exists(words)
    if block.language == "python":
        compile(block.body, str(block), "exec")
        for module, names in re.findall(r"^\s*from (mace_bounds[\w.]*) import ([\w, ]+)$", block.body, re.M):
            assert all(hasattr(import_module(module), name.strip()) for name in names.split(","))


@pytest.fixture(scope="session")
def prepared(labelled_file, tiny_store, tiny_fit, tiny_model_folder, tmp_path_factory):
    """Return the folder in which every page begins; CONTRIBUTING says what it holds."""
    from ase.io import read, write

    from mace_bounds.examples import example_files

    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(example_files("NaCl")[0], folder / "NaCl.cif")
    frames = read(labelled_file, index=":80")
    write(folder / "crystals.extxyz", frames, format="extxyz")
    shutil.copytree(tiny_store, folder / "store")
    shutil.copytree(tiny_fit.folder, folder / "head")
    rows = [
        f"{atoms.info['id']},{atoms.info['REF_energy'] + 0.01 * (k % 7) * len(atoms)}"
        for k, atoms in enumerate(frames)
    ]
    (folder / "energies.csv").write_text("\n".join(["id,energy_ev", *rows]) + "\n")
    shutil.copytree(tiny_model_folder, folder / "my.model")
    return folder


def same(shown: str, wanted: str) -> bool:
    """Compare words; numbers may differ in their last digits, as floating point does between machines."""
    a, b = (re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", text).split() for text in (shown, wanted))
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        try:
            if abs(float(x) - float(y)) > 1e-3 * max(1.0, abs(float(y))):
                return False
        except ValueError:
            if x != y:
                return False
    return True


@pytest.fixture
def registries():
    """What a page adds to a registry leaves it again: other tests count what is there."""
    from mace_bounds.backbones import FAMILIES
    from mace_bounds.benchmark import BASELINES
    from mace_bounds.head import POSTERIORS
    from mace_bounds.structures.formats import FORMATS

    kept = [(registry, dict(registry)) for registry in (FAMILIES, BASELINES, POSTERIORS, FORMATS)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.language in RUN and b.reason is None for b in blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_blocks_run(page, prepared, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from mace_bounds.cli import app

    folder = tmp_path / "page"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(page):
        if block.reason is not None or block.language not in RUN:
            continue
        if block.language == "python":
            exec(compile(block.body, str(block), "exec"), names)
        for words in block.commands:
            assert words[0] == "mace-bounds", (
                f"{block}: mark what cannot be run with <!-- not run: REASON -->"
            )
            done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, f"{block}: {shlex.join(words)}\n{done.output}"
            shown = block.body.partition("\n")[2]
            if block.language == "console" and shown.strip():
                assert same(done.stdout, shown), f"{block} shows\n{shown}\nand it is\n{done.stdout}"


SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def spans(page: Path) -> set[str]:
    return set(SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_text_names_exists(page):
    every = set.union(*application().values()) | of_the_program()
    foreign = {"-m not slow"}
    for span in spans(page) - foreign:
        words = span.split()
        if words[0].startswith("--") and re.fullmatch(r"--[a-z-]+", words[0]):
            assert words[0] in every, span
        elif words[0] == "mace-bounds" and len(words) > 1 and words[1].islower():
            check_exists(["mace-bounds", *words[1:]])
        elif re.fullmatch(r"((scripts|docs|notebooks)/[\w./-]+|tests/\w+)\.\w+", span):
            assert (ROOT / span).is_file(), span
        elif re.fullmatch(r"mace_bounds(\.\w+)+", span):
            module, _, name = span.rpartition(".")
            groups = {entry.group for entry in metadata.distribution("mace-bounds").entry_points}
            assert span in groups or hasattr(import_module(module), name) or import_module(span), span


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_links_between_files_of_the_repository():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).is_file(), target


def test_every_script_is_explained():
    told = (ROOT / "docs" / "dev" / "house.md").read_text(encoding="utf-8").partition("## Scripts")[2]
    assert [path.name for path in (ROOT / "scripts").iterdir() if path.suffix and path.name not in told] == []


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    columns = (tmp_path / "site" / "reference" / "columns.html").read_text(encoding="utf-8")
    assert "energy_model_ev" in columns.replace("<wbr>", "")
    assert "<!-- make:" not in columns
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://(?!mace-bounds)[^\">]*")
    assert (
        '<td data-title="meaning">' in columns
    )  # which names the cells where a phone has no room for columns
    for path in (tmp_path / "site").rglob("*.html"):
        found = [tag for tag in fetched.findall(path.read_text(encoding="utf-8")) if "canonical" not in tag]
        assert not found, path.name


def test_citation_workflows_and_site_are_valid_yaml():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {r["doi"] for r in citation["references"]} == {
        "10.1088/2632-2153/ad9fce",
        "10.1038/s41524-025-01758-4",
    }
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.stem for path in workflows] == ["docs", "release", "tests"]
    for path in workflows:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow.get("on", workflow.get(True))  # YAML 1.1 reads "on" as true
        for job in workflow["jobs"].values():
            assert job["runs-on"]
            assert all("uses" in step or "run" in step for step in job["steps"])
