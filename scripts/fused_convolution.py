"""MACE for training on energies (CPU, float32): messages in one pass over the edges, weights by element.

e3nn writes out every message and its gradient, and multiplies features by one-hot elements; this does neither.
Gradients reach the features and the
radial weights, not the positions, so frames with forces go the ordinary way.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from e3nn import o3

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fPIC")


class Table(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("n_pairs", "n_terms", "n_y", "n_paths", "n_x", "n_out")] + [
        (n, ctypes.c_void_p) for n in ("path", "a", "k", "first", "y", "value")
    ]


def compile_kernel(channels: int) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    target, made = folder / "kernel.so", folder / "kernel.o"
    # linked without -ffast-math, which would let the library turn subnormal numbers off in the whole process
    subprocess.run(["gcc", *FLAGS, f"-DC={channels}", "-c", SOURCE, "-o", made], check=True)
    subprocess.run(["gcc", "-shared", made, "-o", target], check=True)
    return ctypes.CDLL(str(target))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: FusedConvolution, x: Any, y: Any, w: Any, edges: Any) -> torch.Tensor:
        x, y, w, edges = x.contiguous(), y.contiguous(), w.contiguous(), edges.contiguous()
        out = torch.zeros(len(x), layer.table.n_out, x.shape[2])
        layer.kernel.forward(
            ctypes.byref(layer.table),
            ctypes.c_int64(edges.shape[1]),
            *map(pointer, (edges[0], edges[1], x, y, w, out)),
        )
        ctx.layer = layer
        ctx.save_for_backward(x, y, w, edges)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, w, edges = ctx.saved_tensors
        gradient = gradient.contiguous()
        gx, gw = torch.zeros_like(x), torch.zeros_like(w)
        ctx.layer.kernel.backward(
            ctypes.byref(ctx.layer.table),
            ctypes.c_int64(edges.shape[1]),
            *map(pointer, (edges[0], edges[1], x, y, w, gradient, gx, gw)),
        )
        return None, gx, None, gw, None


def components(irreps: o3.Irreps) -> list[int]:
    """Where the components of each irrep start when channels come last."""
    return np.cumsum([0, *(ir.dim for _, ir in irreps)]).tolist()


class FusedConvolution(torch.nn.Module):
    """Stands for ``conv_tp`` and the sum over edges of one interaction block."""

    def __init__(self, product: torch.nn.Module) -> None:
        super().__init__()
        self.inputs, self.outputs = o3.Irreps(product.irreps_in1), o3.Irreps(product.irreps_out)
        harmonics = o3.Irreps(product.irreps_in2)
        self.channels = self.inputs[0].mul
        self.kernel = compile_kernel(self.channels)
        from_x, from_out = components(self.inputs), components(self.outputs)
        pairs: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
        weights = torch.ones(1, product.weight_numel)
        for path, ins in enumerate(product.instructions):
            for a in range(self.inputs[ins.i_in1].ir.dim):
                x = torch.zeros(1, self.inputs.dim)
                x[0, self.inputs.slices()[ins.i_in1].start + a] = 1
                for b in range(harmonics[ins.i_in2].ir.dim):
                    where = harmonics.slices()[ins.i_in2].start + b
                    y = torch.zeros(1, harmonics.dim)
                    y[0, where] = 1
                    out = product(x, y, weights)[0, self.outputs.slices()[ins.i_out]]
                    for k, value in enumerate(out[: self.outputs[ins.i_out].ir.dim].tolist()):
                        if value:
                            key = (path, from_x[ins.i_in1] + a, from_out[ins.i_out] + k)
                            pairs.setdefault(key, []).append((where, value))
        terms = list(pairs.values())
        self.arrays = [np.array(column, np.int32) for column in zip(*pairs, strict=True)]
        self.arrays.append(np.cumsum([0, *map(len, terms)]).astype(np.int32))
        self.arrays.append(np.array([y for group in terms for y, _ in group], np.int32))
        self.arrays.append(np.array([v for group in terms for _, v in group], np.float32))
        sizes = (len(pairs), len(self.arrays[4]), harmonics.dim, len(product.instructions))
        self.table = Table(
            *sizes,
            from_x[-1],
            from_out[-1],
            *(array.ctypes.data_as(ctypes.c_void_p) for array in self.arrays),
        )

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor, edges: torch.Tensor
    ) -> torch.Tensor:
        n = len(features)
        x = torch.cat(
            [
                features[:, where].reshape(n, self.channels, ir.dim).transpose(1, 2)
                for where, (_, ir) in zip(self.inputs.slices(), self.inputs, strict=True)
            ],
            1,
        )
        out = Sum.apply(self, x, harmonics, weights, edges)
        pieces = out.split([ir.dim for _, ir in self.outputs], 1)
        return torch.cat([piece.transpose(1, 2).reshape(n, -1) for piece in pieces], 1)


class ElementLinear(torch.nn.Module):
    """Stands for ``skip_tp``: a linear map for each element, its weights taken by element."""

    def __init__(self, product: torch.nn.Module) -> None:
        super().__init__()
        self.of = (product,)  # in a tuple: its weights are not registered twice
        self.inputs, self.outputs = o3.Irreps(product.irreps_in1), o3.Irreps(product.irreps_out)
        self.elements = o3.Irreps(product.irreps_in2).dim
        self.factors = [self.factor(path) for path in range(len(product.instructions))]

    def block(self, path: int) -> torch.Tensor:
        """Raw weights of one path, (input channel, element, output channel)."""
        sizes = [int(np.prod(ins.path_shape)) for ins in self.of[0].instructions]
        raw = self.of[0].weight.view(-1)[sum(sizes[:path]) : sum(sizes[: path + 1])]
        return raw.view(*self.of[0].instructions[path].path_shape)

    @torch.no_grad()
    def factor(self, path: int) -> float:
        ins = self.of[0].instructions[path]
        x, elements = torch.zeros(1, self.inputs.dim), torch.zeros(1, self.elements)
        x[0, self.inputs.slices()[ins.i_in1].start] = elements[0, 0] = 1
        out = self.of[0](x, elements)[0, self.outputs.slices()[ins.i_out]]
        out = out.view(self.outputs[ins.i_out].mul, -1)[:, 0]
        raw = self.block(path)[0, 0]
        return float((out @ raw) / (raw @ raw))

    def forward(self, features: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
        elements = one_hot.argmax(1)
        n, pieces = len(features), []
        for slot, (mul, ir) in enumerate(self.outputs):
            total = torch.zeros(n, mul * ir.dim)
            for path, ins in enumerate(self.of[0].instructions):
                if ins.i_out == slot:
                    x = features[:, self.inputs.slices()[ins.i_in1]].reshape(n, -1, ir.dim).transpose(1, 2)
                    weights = self.block(path).transpose(0, 1)[elements] * self.factors[path]
                    total = total + torch.bmm(x, weights).transpose(1, 2).reshape(n, -1)
            pieces.append(total)
        return torch.cat(pieces, 1)


class Fused:
    """The fast stand-ins of a model; within ``with``, its energies come through them."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.blocks = list(model.interactions)
        self.slow = [(block.conv_tp, block.skip_tp) for block in self.blocks]
        self.fast = [(FusedConvolution(product), ElementLinear(skip)) for product, skip in self.slow]

    def __enter__(self) -> None:
        for block, (block.conv_tp, block.skip_tp) in zip(self.blocks, self.fast, strict=True):
            block.conv_fusion = True

    def __exit__(self, *_: object) -> None:
        for block, (block.conv_tp, block.skip_tp) in zip(self.blocks, self.slow, strict=True):
            del block.conv_fusion
