"""What the layers of a MACE do, as plain matrices: path normalisation absorbed, everything in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Unsupported(Exception):
    """A model is not of the family whose forward can be re-arranged; the message says why."""


def require_supported(condition: bool, reason: str) -> None:
    """Raise :class:`Unsupported` with ``reason`` unless the condition holds."""
    if not condition:
        raise Unsupported(reason)


def irreps_of(value: Any) -> Any:
    """Irreps as e3nn's class, whatever they were kept as."""
    from e3nn import o3

    return o3.Irreps(str(value))


def natural_degrees(irreps: Any, what: str) -> list[int]:
    """Degrees l of irreps that are sorted, distinct and of parity (-1)^l, as those of the released models."""
    degrees = [ir.l for _, ir in irreps]
    require_supported(all(ir.p == (-1) ** ir.l for _, ir in irreps), f"{what} {irreps} of unnatural parity")
    require_supported(degrees == sorted(set(degrees)), f"{what} {irreps} in another order")
    require_supported(len({mul for mul, _ in irreps}) == 1, f"{what} {irreps} of unequal widths")
    return degrees


def linear_blocks(linear: Any) -> dict[tuple[int, int], torch.Tensor]:
    """Effective matrices of an ``e3nn.o3.Linear``: (slot in, slot out) -> (mul_in, mul_out).

    The identity is passed through the layer, one component of each irrep at a time.
    """
    import torch

    require_supported(
        type(linear).__name__ == "Linear" and hasattr(linear, "irreps_in"), "a linear map not of e3nn"
    )
    require_supported(getattr(linear, "bias_numel", 0) == 0, "a linear map with a bias")
    irreps_in, irreps_out = irreps_of(linear.irreps_in), irreps_of(linear.irreps_out)
    blocks = {}
    for i, (columns, (mul_in, ir_in)) in enumerate(zip(irreps_in.slices(), irreps_in, strict=True)):
        probe = torch.zeros(mul_in, irreps_in.dim, dtype=torch.float64)
        probe[torch.arange(mul_in), columns.start + torch.arange(mul_in) * ir_in.dim] = 1
        image = linear(probe)
        for o, (rows, (mul_out, ir_out)) in enumerate(zip(irreps_out.slices(), irreps_out, strict=True)):
            if ir_out == ir_in:
                blocks[i, o] = image[:, rows].reshape(mul_in, mul_out, ir_out.dim)[:, :, 0].clone()
    return blocks


def selector_blocks(skip: Any) -> dict[tuple[int, int], torch.Tensor]:
    """Effective matrices of a product with one-hot elements: (slot in, slot out) -> (element, mul_in, mul_out)."""
    import torch

    require_supported(hasattr(skip, "instructions") and hasattr(skip, "weight"), "a selector not of e3nn")
    irreps_in, irreps_out = irreps_of(skip.irreps_in1), irreps_of(skip.irreps_out)
    n_elements = irreps_of(skip.irreps_in2).dim
    ones = torch.ones(skip.weight_numel, dtype=torch.float64)
    first = torch.zeros(1, n_elements, dtype=torch.float64)
    first[0, 0] = 1
    blocks, start = {}, 0
    for instruction in skip.instructions:
        (mul_in, ir), (mul_out, _) = irreps_in[instruction.i_in1], irreps_out[instruction.i_out]
        size = mul_in * n_elements * mul_out
        weight = skip.weight.detach()[start : start + size].reshape(mul_in, n_elements, mul_out)
        start += size
        probe = torch.zeros(1, irreps_in.dim, dtype=torch.float64)
        probe[0, irreps_in.slices()[instruction.i_in1].start] = 1
        factor = skip(probe, first, ones)[0, irreps_out.slices()[instruction.i_out].start]
        blocks[instruction.i_in1, instruction.i_out] = (factor * weight).permute(1, 0, 2).contiguous()
        require_supported(ir.p == (-1) ** ir.l, "a selector of unnatural parity")
    return blocks


@dataclass(frozen=True, eq=False)
class Path:
    """One path of the convolution's tensor product: degree l1 of the neighbour, l2 of the edge, l3 of the message.

    ``coupling`` (2 l2 + 1, 2 l3 + 1, 2 l1 + 1) holds the Clebsch-Gordan coefficients with e3nn's normalisation;
    ``slot`` is the place of the message among the irreps before the linear map, ``start`` that of the path's
    couplings among those of all paths.
    """

    l1: int
    l2: int
    l3: int
    slot: int
    start: int
    coupling: torch.Tensor

    @property
    def parity(self) -> float:
        """Factor of the couplings where an edge is reversed."""
        return (-1.0) ** self.l2


def coupling_table(paths: list[Path], n_harmonics: int) -> torch.Tensor:
    """Couplings of all paths as one matrix: from the spherical harmonics of an edge to all its couplings."""
    import torch

    width = sum(p.coupling[0].numel() for p in paths)
    table = torch.zeros(n_harmonics, width, dtype=torch.float64)
    for path in paths:
        block = path.coupling.flatten(1)
        table[path.l2**2 : (path.l2 + 1) ** 2, path.start : path.start + block.shape[1]] = block
    return table


def coupling_paths(product: Any) -> list[Path]:
    """Paths of an ``e3nn.o3.TensorProduct`` of kind "uvu", in the order of its weights (one width each)."""
    import torch

    require_supported(hasattr(product, "instructions"), "a tensor product not of e3nn")
    in1, in2, out = (irreps_of(getattr(product, n)) for n in ("irreps_in1", "irreps_in2", "irreps_out"))
    weights = torch.ones(1, product.weight_numel, dtype=torch.float64)
    paths: list[Path] = []
    filled = 0
    for instruction in product.instructions:
        require_supported(
            instruction.connection_mode == "uvu", f"a tensor product {instruction.connection_mode}"
        )
        ir1, ir2, ir3 = (
            irreps[k].ir
            for irreps, k in ((in1, instruction.i_in1), (in2, instruction.i_in2), (out, instruction.i_out))
        )
        x = torch.zeros(ir1.dim, in1.dim, dtype=torch.float64)
        y = torch.zeros(ir2.dim, in2.dim, dtype=torch.float64)
        x[torch.arange(ir1.dim), in1.slices()[instruction.i_in1].start + torch.arange(ir1.dim)] = 1
        y[torch.arange(ir2.dim), in2.slices()[instruction.i_in2].start + torch.arange(ir2.dim)] = 1
        pairs = product(
            x.repeat(ir2.dim, 1), y.repeat_interleave(ir1.dim, 0), weights.expand(ir1.dim * ir2.dim, -1)
        )
        column = out.slices()[instruction.i_out].start
        coupling = pairs[:, column : column + ir3.dim].reshape(ir2.dim, ir1.dim, ir3.dim).transpose(1, 2)
        paths.append(Path(ir1.l, ir2.l, ir3.l, instruction.i_out, filled, coupling.contiguous()))
        filled += coupling[0].numel()
    return paths


def network_layers(network: Any) -> tuple[list[torch.Tensor], Any]:
    """Effective matrices of an ``e3nn.nn.FullyConnectedNet`` and the plain activation between them."""
    layers = list(network.children())
    require_supported(
        type(network).__name__ == "FullyConnectedNet", f"a radial network {type(network).__name__}"
    )
    matrices, gain, activation = [], 1.0, None
    for layer in layers:
        last = layer.act is None
        variance = layer.h_in * layer.var_in / (layer.var_out if last else 1)
        matrices.append(gain * layer.weight.detach().double() / variance**0.5)
        if not last:
            activation = getattr(layer.act, "f", None)
            require_supported(activation is not None, "a radial network with an activation of another kind")
            gain = float(layer.act.cst) * layer.var_out**0.5
    require_supported(layers[-1].act is None, "a radial network with an activation at its end")
    return matrices, activation
