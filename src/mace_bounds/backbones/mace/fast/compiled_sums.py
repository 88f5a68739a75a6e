"""The same sums as in ``_sums``, compiled by numba: nothing is gathered or multiplied out in memory."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from mace_bounds.backbones.mace.fast.geometry import Chunk
    from mace_bounds.backbones.mace.fast.weights import Path

ROWS = 3  # components of the message taken together: with more the compiler runs out of registers


@cache
def _message_kernel(n_features: int, n_rows: int) -> Any:
    """Loop over receivers and their neighbours for a fixed number of components on either side."""
    import numba

    def add(
        directions: tuple[NDArray[Any], ...],
        radial: NDArray[Any],
        features: NDArray[Any],
        couplings: NDArray[Any],
        parity: Any,
        sums: NDArray[Any],
        starts: tuple[int, int, int, int],
    ) -> None:
        order, offsets, senders, kind = directions
        start, first_atom, first_row, place = starts
        n_edges = len(kind)
        for receiver in range(len(offsets) - 1):
            for k in range(offsets[receiver], offsets[receiver + 1]):
                direction = order[k]
                sender = senders[direction]
                edge = direction % n_edges
                sign = parity if direction >= n_edges else parity * parity
                factor = radial[kind[edge]]
                coupling = couplings[edge, start:]
                for i in range(features.shape[2]):
                    weight = sign * factor[i]
                    for m in range(n_rows):
                        value = coupling[m * n_features] * features[0, sender, i]
                        for q in range(1, n_features):
                            value += coupling[m * n_features + q] * features[q, sender, i]
                        sums[first_row + m, first_atom + receiver, place, i] += value * weight

    return numba.njit(fastmath=True, nogil=True, cache=True)(add)


@cache
def _group_kernel() -> Any:
    import numba

    def add(
        directions: tuple[NDArray[Any], ...],
        hidden: NDArray[Any],
        couplings: NDArray[Any],
        parity: Any,
        start: int,
        sums: NDArray[Any],
    ) -> None:
        order, offsets, kind = directions
        n_edges = len(kind)
        for group in range(len(offsets) - 1):
            for k in range(offsets[group], offsets[group + 1]):
                edge = order[k] % n_edges
                sign = parity if order[k] >= n_edges else parity * parity
                row = hidden[kind[edge]]
                for m in range(sums.shape[0]):
                    factor = sign * couplings[edge, start + m]
                    for i in range(hidden.shape[1]):
                        sums[m, group, i] += factor * row[i]

    return numba.njit(fastmath=True, nogil=True, cache=True)(add)


def sum_groups(path: Path, hidden: torch.Tensor, couplings: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """As :func:`mace_bounds.backbones.mace.fast.sums.sum_groups`."""
    sums = hidden.new_zeros(2 * path.l3 + 1, len(chunk.group_offsets) - 1, hidden.shape[1])
    values = hidden.numpy()
    _group_kernel()(
        (chunk.order.numpy(), chunk.group_offsets.numpy(), chunk.kind.numpy()),
        values,
        couplings.numpy(),
        values.dtype.type(path.parity),
        path.start,
        sums.numpy(),
    )
    return sums


class MessageSums:
    """As :class:`mace_bounds.backbones.mace.fast.sums.MessageSums`."""

    def __init__(self, features: list[torch.Tensor], senders: torch.Tensor, chunk: Chunk) -> None:
        self.features = [f.numpy() for f in features]
        self.directions = tuple(
            tensor.numpy() for tensor in (chunk.order, chunk.offsets, senders, chunk.kind)
        )
        self.first_atom = chunk.atoms.start

    def add(
        self, path: Path, radial: torch.Tensor, couplings: torch.Tensor, sums: torch.Tensor, place: int
    ) -> None:
        """As :meth:`mace_bounds.backbones.mace.fast.sums.MessageSums.add`."""
        n_features, values = 2 * path.l1 + 1, radial.numpy()
        for row in range(0, len(sums), ROWS):
            _message_kernel(n_features, min(ROWS, len(sums) - row))(
                self.directions,
                values,
                self.features[path.l1],
                couplings.numpy(),
                values.dtype.type(path.parity),
                sums.numpy(),
                (path.start + row * n_features, self.first_atom, row, place),
            )
