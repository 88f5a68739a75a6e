"""The notebook runs from a clean start, and what is committed is its own output, without traces of a machine."""

import re
from pathlib import Path

import pytest

from helpers import notebooks

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells():
    return notebooks.code_cells(NOTEBOOK)


def pictures(cells):
    return [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]


def texts(cells):
    for cell in cells:
        for output in cell["outputs"]:
            yield "".join(output.get("text", ""))
            yield "".join(output.get("data", {}).get("text/plain", ""))


def test_committed_notebook_was_run_in_order(cells):
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(cells)) == 2
    assert {o["output_type"] for cell in cells for o in cell["outputs"]} <= {
        "stream",
        "execute_result",
        "display_data",
    }
    assert not [o for cell in cells for o in cell["outputs"] if o.get("name") == "stderr"]


def test_committed_notebook_names_no_machine(cells):
    for text in texts(cells):
        assert re.search(r"(/home/|/root/|/tmp/|/Users/|site-packages|[A-Z]:\\)", text) is None


@pytest.mark.slow
def test_runs_from_a_clean_start(cells, tmp_path):
    shown = notebooks.run(NOTEBOOK, tmp_path)
    assert shown.n_pictures == len(pictures(cells))
    for text, cell in zip(shown.texts, cells, strict=True):
        kept = [o for o in cell["outputs"] if "image/png" not in o.get("data", {})]
        assert bool(text.strip()) == bool(kept)
    text = " ".join(shown.texts)
    assert "414 strained crystals of 69 elements" in text
    assert "two atoms are 0.282 Å apart" in text
    assert "MACE-MPA-0 on 782 crystals" in text
    assert "95 % bounds: ±93 meV/atom" in text  # as its card and the README say
