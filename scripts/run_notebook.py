"""Run a notebook and keep its outputs, without traces of the machine or the time.

python scripts/run_notebook.py [quickstart|tungsten]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def main() -> None:
    path = FOLDER / f"{sys.argv[1] if len(sys.argv) > 1 else 'quickstart'}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)
    print(f"ran {path.name}; look at its outputs before you commit it")


if __name__ == "__main__":
    main()
