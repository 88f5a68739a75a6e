"""Symmetric contraction (MACE's higher-order features) with the element's weights contracted into it once.

For one element and one channel each output is a polynomial of the message's components x_i (Batatia et al.,
MACE, NeurIPS 2022, eq. 10-11).  Its terms are kept once per sorted triple i <= j <= k and evaluated as

    out = Σ_pairs(jk) c_jk p_jk + Σ_i x_i · Σ_pairs(jk) c_i,jk p_jk,      p = [x, x_j x_k],

so that one batched matrix product per parity does nearly all the work.  Components are ordered with
even degrees first: a product of even parity then never meets an output of odd parity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.mace.fast.weights import irreps_of, natural_degrees, require_supported

if TYPE_CHECKING:
    import torch

MAX_CORRELATION = 3


@dataclass(frozen=True, eq=False)
class _Block:
    """One matrix product: outputs of one parity, some outer factors of one parity, a run of the products p.

    ``terms`` are pairs of a tensor (outputs, factors, products, paths) and the weights (element, paths, channel)
    that contract it; the block with the first component among its outer factors has 1 as a factor before them.
    """

    outputs: slice
    outer: slice
    products: slice
    terms: list[tuple[torch.Tensor, torch.Tensor]]


class SymmetricContraction:
    """Polynomials of one layer; call it with atoms of one element.

    ``module``: mace's ``SymmetricContraction`` in float64; ``dtype``, ``device``: of the evaluation.

    Attributes
    ----------
    order : list of int
        The message's components (sorted by degree) in the order that :meth:`__call__` takes.
    degrees : list of int
        Degree of each output.
    """

    def __init__(self, module: Any, dtype: torch.dtype, device: str) -> None:
        require_supported(hasattr(module, "contractions"), "a symmetric contraction of another library")
        degrees_in = natural_degrees(irreps_of(module.irreps_in), "a message of")
        self.degrees = natural_degrees(irreps_of(module.irreps_out), "node features of")
        self.dtype, self.device = dtype, device
        parities = [degree % 2 for degree in degrees_in for _ in range(2 * degree + 1)]
        self.order = sorted(range(len(parities)), key=lambda i: (parities[i], i))
        self.n_even = parities.count(0)
        self.products = _Products(len(parities), self.n_even)
        rows = [[], []]  # type: list[list[tuple[int, int]]]
        for slot, degree in enumerate(self.degrees):
            rows[degree % 2] += [(slot, component) for component in range(2 * degree + 1)]
        self.rows = rows[0] + rows[1]
        monomials = [_monomials(contraction, self.order) for contraction in module.contractions]
        n, e = len(parities), self.n_even
        even, odd = slice(0, len(rows[0])), slice(len(rows[0]), len(self.rows))
        # In a triple i <= j <= k, later outer factors meet fewer products: their runs are cut in two.
        some, more = (e + 1) // 2, (e + n + 1) // 2
        place, mixed, pairs = self.products.place, self.products.mixed, self.products.odd
        plan = [
            (rows[0], even, slice(0, e), self.products.even),
            (rows[1], odd, slice(0, some), mixed),
            (rows[1], odd, slice(some, e), slice(place.get((some, e), 0), mixed.stop)),
            (rows[1], odd, slice(e, more), pairs),
            (rows[1], odd, slice(more, n), slice(place.get((more, more), 0), pairs.stop)),
        ]
        blocks = [self._block(monomials, *task) for task in plan]
        self.blocks = [block for block in blocks if block.terms]
        self._cache: dict[int, list[torch.Tensor]] = {}

    def _block(
        self, monomials: list[Any], rows: list[tuple[int, int]], outputs: slice, outer: slice, products: slice
    ) -> _Block:
        """Distribute the monomials that this product evaluates."""
        import torch

        width, place = products.stop - products.start, self.products.place
        alone = int(outer.start == 0)  # monomials without an outer factor are evaluated here too
        deep = outer.stop - outer.start + alone
        terms: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for row, (slot, component) in enumerate(rows):
            table, weights = monomials[slot]
            for key, values in table.items():
                head, pair = (alone - 1, key) if len(key) < 3 else (key[0] - outer.start + alone, key[1:])
                column = place[pair] - products.start
                first = 0 if len(key) < 3 else alone
                if not (first <= head < deep and 0 <= column < width):
                    continue
                if (slot, len(key)) not in terms:
                    shape = (len(rows), deep, width, values.shape[-1])
                    terms[slot, len(key)] = (torch.zeros(shape, dtype=torch.float64), weights[len(key)])
                terms[slot, len(key)][0][row, head, column] = values[component]
        return _Block(outputs, outer, products, list(terms.values()))

    def coefficients(self, element: int) -> list[torch.Tensor]:
        """Matrices of the blocks for one element, each (channels, outputs * (1 + outer), products)."""
        import torch

        if element not in self._cache:
            matrices = []
            for block in self.blocks:
                parts = [torch.einsum("roqk,kc->croq", t, w[element]) for t, w in block.terms]
                matrices.append(torch.stack(parts).sum(0).flatten(1, 2).to(self.device, self.dtype))
            self._cache[element] = matrices
        return self._cache[element]

    def __call__(self, x: torch.Tensor, element: int) -> list[torch.Tensor]:
        """Contract messages of atoms of one element.

        ``x`` (channels, components, n_atoms): components in the order of :attr:`order`; ``element``: its
        index in the model's list.
        Returns one for each degree l of :attr:`degrees`.
        """
        import torch

        p = self.products(x)
        out = x.new_zeros(x.shape[0], len(self.rows), x.shape[2])
        for block, matrix in zip(self.blocks, self.coefficients(element), strict=True):
            g = torch.bmm(matrix, p[:, block.products])
            g = g.view(x.shape[0], block.outputs.stop - block.outputs.start, -1, x.shape[2])
            if block.outer.start == 0:
                out[:, block.outputs] += g[:, :, 0]
                g = g[:, :, 1:]
            if g.shape[2]:
                out[:, block.outputs] += (g * x[:, None, block.outer]).sum(2)
        by_row = out.permute(1, 2, 0)
        place = {row: k for k, row in enumerate(self.rows)}
        return [
            by_row[[place[slot, m] for m in range(2 * degree + 1)]].contiguous()
            for slot, degree in enumerate(self.degrees)
        ]


class _Products:
    """The products p = [x_even, ee, oo, x_odd, eo] of components, in three runs that overlap.

    ``even`` are those of even parity, ``odd`` the products of two odd components, ``mixed`` those of odd parity.
    """

    def __init__(self, n: int, n_even: int) -> None:
        self.n, self.n_even = n, n_even
        even, odd = range(n_even), range(n_even, n)
        keys: list[tuple[int, ...]] = [(i,) for i in even]
        keys += [(i, j) for i in even for j in even if j >= i]
        first_odd = len(keys)
        keys += [(i, j) for i in odd for j in odd if j >= i]
        first_mixed = len(keys)
        keys += [(i,) for i in odd] + [(i, j) for i in even for j in odd]
        self.place = {key: k for k, key in enumerate(keys)}
        self.even = slice(0, first_mixed)
        self.odd = slice(first_odd, first_mixed)
        self.mixed = slice(first_mixed, len(keys))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """All products of x (channels, components, n_atoms): (channels, products, n_atoms)."""
        import torch

        n, e = self.n, self.n_even
        p = x.new_empty(x.shape[0], len(self.place), x.shape[2])
        p[:, :e] = x[:, :e]
        start = e
        for first, last in [(i, e) for i in range(e)] + [(i, n) for i in range(e, n)]:
            width = last - first
            torch.mul(x[:, first : first + 1], x[:, first:last], out=p[:, start : start + width])
            start += width
        p[:, start : start + n - e] = x[:, e:]
        start += n - e
        if n > e:
            mixed = p[:, start:].view(x.shape[0], e, n - e, x.shape[2])
            torch.mul(x[:, :e, None], x[:, None, e:], out=mixed)
        return p


def _monomials(
    contraction: Any, order: list[int]
) -> tuple[dict[tuple[int, ...], torch.Tensor], dict[int, Any]]:
    """Sum mace's U tensors over permutations: sorted indices -> (components, paths); and the weights by degree."""
    import torch

    position = {component: k for k, component in enumerate(order)}
    table: dict[tuple[int, ...], torch.Tensor] = {}
    weights = {}
    require_supported(
        contraction.correlation <= MAX_CORRELATION, f"a correlation of {contraction.correlation}"
    )
    for degree in range(1, contraction.correlation + 1):
        tensor = contraction.U_tensors(degree).double()
        if tensor.dim() == degree + 1:
            tensor = tensor.unsqueeze(0)
        top = degree == contraction.correlation
        weight = contraction.weights_max if top else contraction.weights[contraction.correlation - degree - 1]
        weights[degree] = weight.detach().double()
        for index in torch.nonzero(tensor.abs().amax(dim=(0, -1)) > 0).tolist():
            key = tuple(sorted(position[i] for i in index))
            values = tensor[(slice(None), *index)]
            table[key] = table[key] + values if key in table else values.clone()
    return table, weights
