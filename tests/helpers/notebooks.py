"""Notebooks run from a clean start in a process of its own, without Jupyter: what their cells show."""

from __future__ import annotations

import ast
import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

from helpers import forked


@dataclass(frozen=True)
class Shown:
    """What a run shows: the text of each code cell, and the number of pictures."""

    texts: list[str]
    n_pictures: int


def code_cells(notebook: Path) -> list[dict]:
    """The code cells as they are in the file, with the outputs that were kept."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(notebook: Path, folder: Path) -> Shown:
    """Run all cells in order in a folder; AssertionError with the traceback if one of them fails."""
    ended = forked.run(run_cells, notebook, cwd=folder, env={"TMPDIR": str(folder)}, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return Shown(*json.loads(ended.stdout))


def run_cells(notebook: str) -> None:
    """Run the cells in one namespace, and print what they show as JSON: printed text, last values, figures."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    names, texts, n_pictures = {"__name__": "__main__"}, [], 0
    for number, cell in enumerate(code_cells(Path(notebook)), start=1):
        printed, source = io.StringIO(), "".join(cell["source"])
        with contextlib.redirect_stdout(printed):
            shown = _run(source, f"cell {number}", names)
            if shown is not None:
                print(shown)
        texts.append(printed.getvalue())
        n_pictures += len(plt.get_fignums())
        plt.close("all")
    print(json.dumps([texts, n_pictures]))


def _run(source: str, name: str, names: dict[str, object]) -> object:
    """Run the source of a cell; the value of its last line if that is an expression that no semicolon ends."""
    tree = ast.parse(source, name)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr) or source.rstrip().endswith(";"):
        exec(compile(tree, name, "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)
