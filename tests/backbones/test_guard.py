"""Checkpoints that a user names: what MACE models hold is loaded, anything else is refused before it is used."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch

from helpers.mace_builds import TINY, build
from mace_bounds.backbones.mace import checkpoint, guard
from mace_bounds.errors import ModelError


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def files(thing, folder):
    """A torch checkpoint and a plain pickle of the same."""
    torch.save(thing, folder / "saved.model")
    (folder / "plain.model").write_bytes(pickle.dumps(thing))
    return folder / "saved.model", folder / "plain.model"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch exploded",)),
        (eval, ("open('exploded', 'w')",)),
        (exec, ("open('exploded', 'w')",)),
        (Path.touch, (Path("exploded"),)),
        (open, ("exploded", "w")),
        (subprocess.check_output, (["touch", "exploded"],)),
        (torch.load, ("exploded",)),
        (torch.hub.load, ("exploded", "x")),
        (torch.from_file, ("exploded", True, 1)),
        (__import__, ("exploded",)),
    ],
    ids=lambda thing: getattr(thing, "__name__", None),
)
def test_what_no_model_needs_is_refused_before_it_is_used(function, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exploded.py").write_text("open('exploded', 'w').close()", encoding="utf-8")
    for path in files({"model": Call(function, *arguments)}, tmp_path):
        with pytest.raises(ModelError, match=r"imports .* when it is loaded, .* MACE_BOUNDS_TRUST=1"):
            checkpoint.load_checkpoint(path, trusted=False)
    assert not (tmp_path / "exploded").exists()


def test_names_of_other_packages_inside_of_maces_own_are_refused(tmp_path):
    """Pickle's own text, as no pickler would write it: what a module of mace has imported is not its own."""
    for text in (
        b"cmace.modules.utils\nlogging\n.",
        b"ctorch.nn.modules.module\nweakref\n.",
        b"cbuiltins\n__import__\n.",
    ):
        (tmp_path / "own.model").write_bytes(text)
        with pytest.raises(ModelError, match="imports"):
            checkpoint.load_checkpoint(tmp_path / "own.model", trusted=False)
    dotted = b"\x80\x04\x8c\x0cmace.modules\x8c\x0futils.os.system\x93."
    (tmp_path / "own.model").write_bytes(dotted)
    with pytest.raises(ModelError, match="imports"):
        checkpoint.load_checkpoint(tmp_path / "own.model", trusted=False)


@pytest.mark.parametrize(
    "text",
    [
        "def forward(self, x):\n    return x.numpy().tofile('exploded')",
        "def forward(self, x):\n    import os\n    return x",
        "def forward(self, x):\n    return __import__('os').system('touch exploded')",
        "def forward(self, x):\n    return torch.load('exploded')",
        "def forward(self, x):\n    return torch.hub.load('exploded', 'x')",
        "def forward(self, x):\n    return torch.from_file('exploded', True, 1)",
        "def forward(self, x):\n    return torch.functional.torch.load('exploded')",
        "def forward(self, x):\n    return torch.os.system('touch exploded')",
        "def forward(self, x):\n    return self.__class__.__mro__",
        "def forward(self, x):\n    return self._constant0.numpy().tofile('exploded')",
        "def forward(self, x):\n    return self.to_folder('exploded')",
        "def forward(self, x):\n    return x.__class__",
        "def forward(self, x):\n    return (lambda: x)()",
        "@open('exploded', 'w')\ndef forward(self, x):\n    return x",
        "def forward(self, x = open('exploded', 'w')):\n    return x",
        "def forward(self, torch):\n    return torch.load('exploded')",
        "def forward(self, x:",
    ],
)
def test_text_of_a_graph_that_does_more_than_sums(text):
    assert guard.text_of_a_graph(text)


def test_text_of_a_graph_of_a_model():
    text = (
        "def forward(self, x, y):\n"
        "    einsum = torch.functional.einsum('ai,bi->ab', x, y);  x = y = None\n"
        "    return einsum.reshape((1, -1)).permute((1, 0)) + self._constant0"
    )
    assert guard.text_of_a_graph(text) == ""


def test_text_in_a_checkpoint_is_read_before_it_runs(tmp_path):
    """A real model in whose graph a line of text was changed."""
    path = tmp_path / "own.model"
    torch.save(build(TINY), path)
    assert sum(p.numel() for p in checkpoint.load_checkpoint(path, trusted=False).parameters()) > 0
    graphs = [m for m in build(TINY).modules() if isinstance(m, torch.fx.GraphModule)]
    assert graphs
    body, imports = graphs[0].__reduce__()[1]
    body = body | {"_code": body["_code"].replace("return", "torch.load('exploded');  return")}
    (tmp_path / "text.model").write_bytes(
        pickle.dumps(Call(torch.fx.graph_module.reduce_graph_module, body, imports))
    )
    with pytest.raises(ModelError, match=r"runs 'torch\.load'"):
        checkpoint.load_checkpoint(tmp_path / "text.model", trusted=False)
    (tmp_path / "text.model").write_bytes(
        pickle.dumps(
            Call(
                torch.fx.graph_module.reduce_graph_module,
                graphs[0].__reduce__()[1][0],
                "import os\nos.abort()",
            )
        )
    )
    with pytest.raises(ModelError, match="runs 'import os"):
        checkpoint.load_checkpoint(tmp_path / "text.model", trusted=False)


def test_who_trusts_a_file_says_so(tmp_path, monkeypatch):
    (tmp_path / "own.model").write_bytes(pickle.dumps({"model": Call(os.getcwd)}))
    with pytest.raises(ModelError, match="imports"):
        checkpoint.load_checkpoint(tmp_path / "own.model", trusted=False)
    monkeypatch.setenv("MACE_BOUNDS_TRUST", "1")
    with pytest.raises(ModelError, match=r"torch cannot load|no whole model"):
        checkpoint.load_checkpoint(tmp_path / "own.model", trusted=False)
