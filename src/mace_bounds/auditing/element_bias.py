"""The error that each element brings: ridge regression of signed errors on atomic fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.auditing.atlas import discoveries
from mace_bounds.columns import MEV_PER_EV

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

N_BOOTSTRAP = 300
_PENALTIES = np.logspace(-3, 3, 25)


def element_bias(formulas: Sequence[str], error: Array, *, seed: int = 0) -> pd.DataFrame:
    """Expected error of each element, so that a structure's is the mean over its atoms.

    Parameters
    ----------
    formulas : sequence of str, shape (n,)
        Formulas of the labelled rows.
    error : ndarray, shape (n,)
        E_DFT - E_model per atom, eV/atom.
    seed : int
        Of the bootstrap over compositions.

    Returns
    -------
    DataFrame
        ``element, n, n_compositions, bias_mev_per_atom, standard_error_mev_per_atom, p_value, significant``;
        elements with little data are drawn to zero by the penalty, which generalised cross-validation chooses;
        ``significant`` after Benjamini and Hochberg over the elements.

    References
    ----------
    Golub, Heath, Wahba, Technometrics 21, 215 (1979).
    """
    import pandas as pd
    from pymatgen.core import Composition
    from scipy.stats import norm

    names = sorted(set(formulas))
    place = {name: k for k, name in enumerate(names)}
    code = np.fromiter((place[name] for name in formulas), np.int64, len(formulas))
    known = [Composition(name).fractional_composition.get_el_amt_dict() for name in names]
    elements = sorted(set().union(*known)) if known else []
    total = np.bincount(code, weights=error).astype(np.float64)
    rows = _Rows(known, elements, np.bincount(code).astype(np.float64), total)
    penalty = rows.penalty(error)
    ones = np.ones(len(names))
    bias = rows.ridge(ones, penalty)
    rng = np.random.default_rng(seed)
    draws = np.array(
        [rows.ridge(rng.multinomial(len(names), ones / len(names)), penalty) for _ in range(N_BOOTSTRAP)]
    )
    spread = draws.std(axis=0, ddof=1)
    p = 2 * norm.sf(np.abs(bias) / np.maximum(spread, np.finfo(float).tiny))
    return pd.DataFrame(
        {
            "element": elements,
            "n": rows.n,
            "n_compositions": rows.n_compositions,
            "bias_mev_per_atom": bias * MEV_PER_EV,
            "standard_error_mev_per_atom": spread * MEV_PER_EV,
            "p_value": p,
            "significant": discoveries(p),
        }
    )


class _Rows:
    """Atomic fractions of the compositions, most of them zero, with the count and the summed error of their rows.

    Rows of one composition are equal but for their error, and a composition holds few of the elements: all sums of the
    regression take a few numbers for each composition.
    """

    def __init__(
        self, known: Sequence[Mapping[str, float]], elements: Sequence[str], count: Array, total: Array
    ) -> None:
        from scipy.sparse import csr_array

        column = {symbol: j for j, symbol in enumerate(elements)}
        ends = np.cumsum([0, *(len(one) for one in known)])
        columns = np.fromiter((column[symbol] for one in known for symbol in one), np.int64, ends[-1])
        values = np.fromiter((share for one in known for share in one.values()), np.float64, ends[-1])
        self._x = csr_array((values, columns, ends), shape=(len(known), len(elements)))
        self._count, self._total = count, total

    @property
    def n(self) -> NDArray[np.int64]:
        """Rows that hold each element."""
        return np.asarray((self._x > 0).T @ self._count).astype(np.int64)

    @property
    def n_compositions(self) -> NDArray[np.int64]:
        """Compositions that hold each element."""
        return np.asarray((self._x > 0).sum(axis=0)).astype(np.int64)

    def _sums(self, weights: NDArray[np.number[Any]]) -> tuple[Array, Array]:
        """``XᵀWX`` and ``XᵀWy`` over all rows, weighted by composition."""
        scaled = self._x.copy()
        scaled.data *= np.repeat(weights * self._count, np.diff(self._x.indptr))
        return (scaled.T @ self._x).toarray(), np.asarray(self._x.T @ (weights * self._total))

    def ridge(self, weights: NDArray[np.number[Any]], penalty: float) -> Array:
        """Coefficients of the elements."""
        gram, projected = self._sums(weights)
        return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), projected))

    def penalty(self, error: Array) -> float:
        """Penalty of least generalised cross-validation score."""
        gram, projected = self._sums(np.ones(len(self._count)))
        squares, vectors = np.linalg.eigh(gram)
        squares = np.maximum(squares, len(squares) * np.finfo(float).eps * squares.max())
        along = (vectors.T @ projected) ** 2 / squares  # of the error, along the left singular vectors
        rest = max(float(error @ error - along.sum()), 0.0)
        scores = []
        for penalty in _PENALTIES:
            kept = squares / (squares + penalty)
            scores.append((rest + np.sum((1 - kept) ** 2 * along)) / (len(error) - kept.sum()) ** 2)
        return float(_PENALTIES[int(np.argmin(scores))])
