"""Unpickle a checkpoint without what no MACE needs.

A pickle is a small program: it may import anything and call it.  The checkpoints of mace import classes of mace, e3nn
and torch, and hold the source text of a few contractions (``torch.fx``), which is executed.  Here the imports are
compared with a list and the text is read as syntax, before either is used.
"""

from __future__ import annotations

import ast
import importlib
import pickle
import re
from types import ModuleType, SimpleNamespace
from typing import Any

from mace_bounds.errors import ModelError

PLAIN = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "_codecs": "encode",
    "collections": "OrderedDict defaultdict",
    "copyreg": "_reconstructor",
    "functools": "partial",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "torch.fx._symbolic_trace": "Tracer",
    "torch.fx.graph": "CodeGen",
    "torch.fx.graph_module": "GraphModule",
    "torch.nn.parameter": "Buffer Parameter UninitializedParameter",
    "torch.storage": "TypedStorage UntypedStorage",
    "torch._tensor": "_rebuild_from_type_v2",
}
"""Names of modules, with what may be imported from them."""
ROOMS = (
    "mace.modules",
    "e3nn.math",
    "e3nn.nn",
    "e3nn.o3",
    "torch.nn.modules",
    "torch.nn.functional",
    "cuequivariance",
    "cuequivariance_torch",
    "openequivariance",
)
"""Packages whose own classes and functions may be imported."""
GRAPH = ("torch.fx.graph_module", "reduce_graph_module")
IMPORTS = re.compile(
    r"NoneType = type\(None\)|from math import (inf|nan)|from torch import device|import (torch|math|operator)"
    r"|import torch\.(fx|utils)\._pytree as (fx_)?pytree"
)
NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return, ast.Expr, ast.Call,
    ast.keyword, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.Tuple, ast.List, ast.BinOp,
    ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context,
)  # fmt: skip
NAMES = frozenset({"self", "torch", "device", "inf", "nan", "NoneType", "int", "float", "slice"})
METHODS = frozenset({
    "add", "clone", "contiguous", "detach", "device", "div", "dtype", "expand", "expand_as", "flatten",
    "mean", "movedim", "mul", "ndim", "new_empty", "new_ones", "new_zeros", "norm", "permute", "pow", "relu",
    "reshape", "shape", "sigmoid", "silu", "size", "softplus", "sqrt", "squeeze", "stack", "sub", "sum",
    "swapaxes", "tanh", "to", "transpose", "type_as", "unflatten", "unsqueeze", "view",
})  # fmt: skip
"""What tensors are asked for in the text of a graph; nothing of it reaches a file."""


def text_of_a_graph(text: str) -> str:
    """Why the source text of a ``torch.fx`` graph is not one of tensors alone; empty if it is.

    Parameters
    ----------
    text : str
        One function, as ``torch.fx`` writes it.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "text that is no Python"
    own = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    if own & NAMES - {"self"}:
        return f"names of its own: {', '.join(sorted(own & NAMES))}"
    for node in ast.walk(tree):
        if not isinstance(node, NODES) or (isinstance(node, ast.FunctionDef) and node.decorator_list):
            return f"a {type(node).__name__}"
        if isinstance(node, ast.Name) and node.id not in own | NAMES:
            return node.id
        if isinstance(node, ast.Attribute) and not _is_harmless(node):
            return ast.unparse(node)
    return ""


def _is_harmless(node: ast.Attribute) -> bool:
    """Whether an attribute is a function or dtype of torch, a part of the module itself, or a method in the list."""
    from torch.fx import GraphModule

    if isinstance(node.value, ast.Name) and node.value.id == "self":
        return not hasattr(GraphModule, node.attr)
    chain = ast.unparse(node).split(".")
    if chain[0] != "torch":
        return node.attr in METHODS
    return chain in (["torch", "functional"], ["torch", "nn"], ["torch", "nn", "functional"]) or _is_torch(
        chain
    )


def _is_torch(chain: list[str]) -> bool:
    """Whether a dotted name is a mathematical function or a dtype of torch."""
    import torch

    if len(chain) == 2:
        return isinstance(getattr(torch, chain[1], None), torch.dtype) or (
            hasattr(torch._C._VariableFunctions, chain[1]) and chain[1] != "from_file"
        )
    found = getattr(torch.functional if chain[1] == "functional" else torch.nn.functional, chain[-1], None)
    return len(chain) in (3, 4) and callable(found) and not chain[-1].startswith("_")


def _graph(body: dict[str, Any], imports: str) -> Any:
    """``torch.fx.graph_module.reduce_graph_module``, after its text was read."""
    from torch.fx.graph_module import reduce_graph_module

    other = [line for line in imports.splitlines() if line.strip() and not IMPORTS.fullmatch(line.strip())]
    for text in (str(body.get("_code", "")), str(body.get("code", ""))):
        if found := "; ".join(other) or text_of_a_graph(text):
            raise Foreign(f"runs {' '.join(found.split())[:80]!r}")
    return reduce_graph_module(body, imports)


class Foreign(Exception):
    """What a checkpoint would do that no MACE needs."""


class Unpickler(pickle.Unpickler):
    """An unpickler that imports what MACE models hold, and nothing else.

    Raises
    ------
    Foreign
        Where a pickle asks for anything else; it is not imported.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function of that name, if it is one that models hold."""
        module = "builtins" if module == "__builtin__" else module
        if (module, name) == GRAPH:
            return _graph
        if not self._is_known(module, name):
            raise Foreign(f"imports {module}.{name}"[:100])
        return super().find_class(module, name)

    @staticmethod
    def _is_known(module: str, name: str) -> bool:
        if "." in name or name.startswith("__"):
            return False
        if name in PLAIN.get(module, "").split():
            return True
        if module == "torch._utils":
            return name.startswith("_rebuild_")
        if module in ("torch", "torch._C", "torch._C._VariableFunctions"):
            return name in ("Size", "device") or name.endswith("Storage") or _is_torch(["torch", name])
        if not any(module == room or module.startswith(room + ".") for room in ROOMS):
            return False
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            return True  # the sentence of what is missing comes from the import itself
        home = str(getattr(found, "__module__", None) or module)
        return (
            callable(found)
            and not isinstance(found, ModuleType)
            and home.split(".")[0] in (module.split(".")[0], "torch")
        )


def refuse(path: object, why: Foreign) -> ModelError:
    """Return the error that says what a checkpoint would have done, and what to do."""
    return ModelError(
        f"{path} {why} when it is loaded, which no model of mace needs; it was not loaded. If you know where it comes "
        "from, load it with torch.load in Python and pass the model itself (BoundsPredictor(model, head)), or set "
        "MACE_BOUNDS_TRUST=1."
    )


MODULE = SimpleNamespace(
    Unpickler=Unpickler, load=lambda file, **options: Unpickler(file, **options).load(), __name__="pickle"
)
"""What ``torch.load`` takes as ``pickle_module``."""
