"""The floor under the forward: counted work of an architecture, measured rates of this machine.

    python scripts/bench_floor.py    one thread's GEMM rate and copy bandwidth, as JSON

Counted is an exact forward for energies alone: weights are picked by element, consecutive linear maps and those with an
element's weights are one, the first layer's senders come from a table over elements, the symmetric contraction evaluates
each distinct monomial with a non-zero coefficient once, and the radial MLP runs once for edges of a crystal that have the
same two elements and the same length (in float32): both directions of a pair do, and symmetry makes more. Geometry
(lengths, spherical harmonics, Bessel functions) is not counted. Bytes are those of every stage's result, written once and
read once.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import permutations

import torch


@dataclass(frozen=True)
class Work:
    """Multiply-adds and numbers moved of one stage: per atom, per edge, per distinct length of an edge."""

    stage: str
    macs_per_atom: int = 0
    macs_per_edge: int = 0
    macs_per_length: int = 0
    numbers_per_atom: int = 0
    numbers_per_edge: int = 0
    numbers_per_length: int = 0


def count_work(module: torch.nn.Module) -> list[Work]:
    """Count the stages of a ``ScaleShiftMACE``, layer by layer."""
    from e3nn import o3

    stages = []
    layers = list(zip(module.interactions, module.products, strict=True))
    n_harmonics = o3.Irreps(str(layers[0][0].conv_tp.irreps_in2)).dim
    for k, (interaction, product) in enumerate(layers):
        name, conv = f"layer {k + 1}", interaction.conv_tp
        radial = sum(p.numel() for p in interaction.conv_tp_weights.parameters() if p.ndim == 2)
        stages.append(
            Work(
                f"{name}, radial MLP",
                macs_per_length=radial,
                numbers_per_length=conv.weight_numel,
                numbers_per_edge=conv.weight_numel,
            )
        )
        sender, message = conv.irreps_in1.dim, conv.irreps_out.dim
        stages.append(
            Work(
                f"{name}, convolution",
                macs_per_edge=convolution_macs(conv),
                numbers_per_edge=sender + 2 * n_harmonics,
                numbers_per_atom=2 * message,
            )
        )
        residual = "Residual" in type(interaction).__name__
        linear = linear_macs(interaction.linear)
        if residual and k > 0:  # in the first layer the skipped features are a table over elements
            linear += skip_macs(interaction.skip_tp)
        stages.append(
            Work(
                f"{name}, linear maps by element",
                macs_per_atom=linear,
                numbers_per_atom=2 * interaction.irreps_out.dim,
            )
        )
        stages.append(
            Work(
                f"{name}, symmetric contraction",
                macs_per_atom=contraction_macs(product.symmetric_contractions),
                numbers_per_atom=2 * product.linear.irreps_in.dim,
            )
        )
        readout = getattr(module.readouts[k], "linear_1", None)
        after = linear_macs(product.linear, scalars_only=k + 1 < len(layers))
        after += linear_macs(layers[k + 1][0].linear_up) if k + 1 < len(layers) else 0
        after += linear_macs(readout) if readout is not None else 0
        stages.append(
            Work(f"{name}, linear maps after", after, numbers_per_atom=2 * product.linear.irreps_out.dim)
        )
    return stages


def linear_macs(linear: torch.nn.Module, scalars_only: bool = False) -> int:
    """Multiply-adds of an equivariant linear map for one atom."""
    paths = [(i.path_shape, linear.irreps_in[i.i_in].ir) for i in linear.instructions]
    return sum(shape[0] * shape[1] * ir.dim for shape, ir in paths if ir.l == 0 or not scalars_only)


def skip_macs(skip: torch.nn.Module) -> int:
    """The same for a map with weights by element: of all elements only the atom's own counts."""
    return sum(i.path_shape[0] * i.path_shape[2] * skip.irreps_out[i.i_out].ir.dim for i in skip.instructions)


def convolution_macs(conv: torch.nn.Module) -> int:
    """Weighting the sender, then each non-zero coupling onto the receiver (in the cheaper of two orders)."""
    from e3nn import o3

    macs = 0
    for i in conv.instructions:
        multiplicity, one = conv.irreps_in1[i.i_in1]
        coupled = (
            o3.wigner_3j(one.l, conv.irreps_in2[i.i_in2].ir.l, conv.irreps_out[i.i_out].ir.l).abs() > 1e-9
        )
        pairs = min(int(coupled.any(dim=1).sum()), int(coupled.any(dim=2).sum()))
        macs += multiplicity * (one.dim + pairs)
    return macs


def contraction_macs(symmetric: torch.nn.Module) -> int:
    """Products that make the distinct monomials, and their non-zero coefficients in every output."""
    monomials: set[tuple[int, ...]] = set()
    coefficients = 0
    for contraction in symmetric.contractions:
        for order in range(1, contraction.correlation + 1):
            found, n = monomials_of(contraction.U_tensors(order), order)
            monomials |= found
            coefficients += n
    # A monomial is one product of its last factor with its prefix, which must then be there as well.
    prefixes = {m[:k] for m in monomials for k in range(2, len(m) + 1)}
    return int(symmetric.contractions[0].num_features) * (len(prefixes) + coefficients)


def monomials_of(u: torch.Tensor, order: int) -> tuple[set[tuple[int, ...]], int]:
    """Distinct monomials of one order and the number of their non-zero coefficients over the output's components."""
    if u.ndim == order + 1:
        u = u.unsqueeze(0)  # scalars come without the axis of components
    axes = range(1, order + 1)
    symmetric = sum(u.permute(0, *p, order + 1) for p in permutations(axes))
    present = (symmetric.abs() > 1e-9).any(dim=-1).nonzero().tolist()
    ordered = [(m, tuple(index)) for m, *index in present if index == sorted(index)]
    return {index for _, index in ordered}, len(ordered)


def gemm_rate(dtype: torch.dtype, seconds: float = 1.5, size: int = 1024) -> float:
    """Multiply-adds per second of ``torch.mm`` in the best tenth of a second."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    out = torch.empty_like(a)
    return size**3 * best_rate(lambda: torch.mm(a, b, out=out), seconds)


def copy_rate(seconds: float = 1.0, n_bytes: int = 1 << 28) -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    a = torch.ones(n_bytes, dtype=torch.uint8)
    b = torch.empty_like(a)
    return 2 * n_bytes * best_rate(lambda: b.copy_(a), seconds)


def best_rate(call, seconds: float) -> float:
    """Calls per second in the best burst: what the machine can do, whatever else it is doing now."""
    call()  # touches the memory
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < 0.1:
            call()
            calls += 1
        best = max(best, calls / (time.perf_counter() - start))
    return best


def main() -> None:
    torch.set_num_threads(1)
    rates = {f"macs_per_s_{d}": gemm_rate(getattr(torch, d)) for d in ("float32", "float64")}
    print(json.dumps({**rates, "bytes_per_s": copy_rate()}))


if __name__ == "__main__":
    main()
