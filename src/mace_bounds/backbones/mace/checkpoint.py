"""The one place that knows mace: importing it, loading checkpoints, calling its forward and what that takes."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.graph import GraphBatch, MemoryCost
from mace_bounds.backbones.mace import guard
from mace_bounds.errors import ModelError

if TYPE_CHECKING:
    import torch

MPA_0 = "medium-mpa-0"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what mace and e3nn print and warn about on import and load."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype: mace builds some tensors in it (its mask over heads, for one)."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def without_torchscript() -> Iterator[None]:
    """Let e3nn keep its generated code in Python while a model is built: the same numbers, built 0.7 s sooner."""
    import e3nn

    before = e3nn.get_optimization_defaults()["jit_script_fx"]
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(jit_script_fx=before)


def import_mace() -> Any:
    """Import mace (before e3nn, as it sets up torch.load for it) and return ``mace.modules``."""
    with quiet():
        import mace  # noqa: F401
        from mace import modules
    return modules


@cache
def _known() -> tuple[dict[str, str], Path]:
    """Return the foundation models with where mace fetches them, and the folder of those that come with it.

    They are read from the text of mace's module: to import it takes seconds and half a gigabyte.
    """
    found = find_spec("mace")
    assert found is not None
    assert found.submodule_search_locations
    module = Path(found.submodule_search_locations[0], "calculators", "foundations_models.py")
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "mace_mp_urls":
            return ast.literal_eval(node.value), module.with_suffix("")
    raise ModelError(
        "this version of mace does not list its foundation models; install the one that is named."
    )


def names() -> list[str]:
    """Names of the foundation models that mace can download (``mace.calculators.mace_mp``)."""
    return list(_known()[0])


def cache_file(name: str) -> tuple[Path, str]:
    """Where mace keeps the checkpoint of a named model, and where it fetches it from (mace's own naming)."""
    urls, shipped = _known()
    local = shipped / "mace-mpa-0-medium.model"
    if name == MPA_0 and local.is_file():
        return local, urls[name]
    file = urls[name].rsplit("/", 1)[-1]
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace"
    return cache_folder / "".join(c for c in file if c.isalnum() or c == "_"), urls[name]


def fetch(name: str) -> Path:
    """Path of a named checkpoint, downloaded by mace into its own cache on first use.

    Raises
    ------
    ModelError
        If the checkpoint is not in the cache and cannot be downloaded.
    """
    import_mace()
    with quiet():
        from mace.calculators.foundations_models import download_mace_mp_checkpoint

        try:
            return Path(download_mace_mp_checkpoint(name))
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"the MACE model {name!r} could not be downloaded "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); connect to the internet, "
                "pass the path of a checkpoint you have, or use --model mini, which needs no download."
            ) from error


def load_checkpoint(path: Path, trusted: bool) -> torch.nn.Module:
    """Load a pickled or scripted mace checkpoint on the CPU.

    Parameters
    ----------
    path : Path
        The file.
    trusted : bool
        Whether its pickle may do anything.  Else, unless the environment has ``MACE_BOUNDS_TRUST=1``, it is refused for
        what no MACE needs (:mod:`mace_bounds.backbones.mace.guard`).

    Raises
    ------
    ModelError
        If the file is not a torch checkpoint of a model, or does anything else than be one.
    """
    import_mace()
    import torch

    free = trusted or os.environ.get("MACE_BOUNDS_TRUST") == "1"
    try:
        with quiet():
            loaded = torch.load(
                path, map_location="cpu", pickle_module=pickle if free else guard.MODULE, weights_only=False
            )
    except guard.Foreign as why:
        raise guard.refuse(path, why) from why
    except Exception as error:
        raise ModelError(
            f"torch cannot load {path} as a checkpoint "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); "
            "pass a model file as mace writes it, a mace name, or mini."
        ) from error
    if not isinstance(loaded, torch.nn.Module):
        raise ModelError(
            f"{path} holds a {type(loaded).__name__} and no whole model; pass the "
            ".model file, not a training checkpoint of weights."
        )
    return loaded


def class_name(module: torch.nn.Module) -> str:
    """Class of a module, also where it has been scripted."""
    return str(getattr(module, "original_name", type(module).__name__))


def head_names(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of a model's heads; a model without names has one."""
    return tuple(str(name) for name in (getattr(module, "heads", None) or ["Default"]))


def pair_energies(module: torch.nn.Module, data: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Pair repulsion of each atom before the scale, eV, shape (n_atoms,); None if the model has none."""
    repulsion = getattr(module, "pair_repulsion_fn", None)
    if repulsion is None:
        return None
    from mace.modules.utils import get_edge_vectors_and_lengths

    _, lengths = get_edge_vectors_and_lengths(
        positions=data["positions"], edge_index=data["edge_index"], shifts=data["shifts"]
    )
    energies: torch.Tensor = repulsion(lengths, data["node_attrs"], data["edge_index"], module.atomic_numbers)
    return energies


@contextlib.contextmanager
def pair_energies_of_forward(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """What :func:`pair_energies` gives, of each forward in the block; empty without repulsion or where compiled."""
    seen: list[torch.Tensor] = []
    repulsion = getattr(module, "pair_repulsion_fn", None)
    if repulsion is None:
        yield seen
        return
    hook = repulsion.register_forward_hook(lambda _, __, energies: seen.append(energies))
    try:
        yield seen
    finally:
        hook.remove()


def forward(module: torch.nn.Module, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mace's own forward for energies only (no gradients); the dtype is that of the positions."""
    import torch

    with torch.no_grad(), default_dtype(data["positions"].dtype), quiet():
        out: dict[str, torch.Tensor] = module(dict(data), training=False, compute_force=False)
    return out


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        import torch

        if isinstance(thing, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            torch.jit.save(thing, buffer)
            return _load_script, (buffer.getvalue(),)
        return NotImplemented


def _load_script(data: bytes) -> Any:
    import torch

    return torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]


def pickled(state: Any) -> bytes:
    """Bytes of something that holds modules, scripted ones among them."""
    buffer = io.BytesIO()
    with quiet():
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(state)
    return buffer.getvalue()


def unpickled(data: bytes) -> Any:
    """Undo :func:`pickled`; only for bytes that this package has made itself."""
    import_mace()
    with quiet():
        return pickle.loads(data)


def mace_data(batch: GraphBatch, n_elements: int, head: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the dictionary that mace's own forward takes for energies (``mace.data.AtomicData`` batched)."""
    import torch

    first, second = batch.first, batch.second
    counts = torch.bincount(batch.crystal_of_atom, minlength=batch.n_crystals)
    return {
        "positions": batch.positions.detach().to(dtype),  # mace marks its positions for gradients
        "shifts": torch.cat([batch.shifts, -batch.shifts]).to(dtype),
        "edge_index": torch.stack([torch.cat([second, first]), torch.cat([first, second])]),
        "node_attrs": torch.nn.functional.one_hot(batch.elements, n_elements).to(dtype),
        "batch": batch.crystal_of_atom,
        "ptr": torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        "head": torch.full_like(counts, head),
        # Looked up by mace, but in use for virials and stresses only.
        "cell": batch.positions.new_zeros((3 * batch.n_crystals, 3), dtype=dtype),
    }


@dataclass(frozen=True)
class _Sizes:
    """Numbers that a model keeps: values per edge and per atom, and bytes of each."""

    weights: int  # of the widest convolution, per edge
    components: int  # of a message: (l_max + 1)²
    contraction: int  # of the largest tensor that the symmetric contraction is begun with
    channels: int
    itemsize: int


def _sizes(module: torch.nn.Module) -> _Sizes:
    weights, components, contractions, channels = [1], [1], [1], [1]
    for name, tensor in module.state_dict().items():
        if ".conv_tp_weights." in name:
            weights.append(tensor.shape[-1])
        elif name.endswith("weights_max"):
            channels.append(tensor.shape[-1])
        elif ".U_matrix" in name:
            components.append(tensor.shape[-2])
            contractions.append(math.prod(tensor.shape[:-2]))
    itemsize = next(module.parameters()).element_size()
    return _Sizes(max(weights), max(components), max(contractions), max(channels), itemsize)


def mace_cost(module: torch.nn.Module) -> MemoryCost:
    """Upper bound for mace's own forward without gradients, from the sizes of the model.

    Two steps are the largest: the convolution holds some 2.4 times its output for every edge, the symmetric
    contraction some 3.5 times its first contraction for every atom (peak memory of ``mini``, of the
    architecture of MACE-MPA-0, and of a tiny model, in float32 and float64). They come one after the other, so
    their sum is at most twice the peak.
    """
    n = _sizes(module)
    convolution = n.weights * math.sqrt(n.components)
    return MemoryCost(3.5 * n.itemsize * n.contraction * n.channels, 2.5 * n.itemsize * convolution)


def fast_cost(module: torch.nn.Module, edges_per_chunk: int) -> MemoryCost:
    """Upper bound for the re-arranged forward: messages of all atoms, but weights of one chunk of edges only.

    Measured as for :func:`mace_cost`: one to three times the peak, the most where all features are scalars.
    """
    n = _sizes(module)
    return MemoryCost(
        per_atom_bytes=5 * n.itemsize * n.channels * n.components,
        per_edge_bytes=100 * n.itemsize,
        base_bytes=n.itemsize * (4e6 + 2 * edges_per_chunk * n.weights),
    )
