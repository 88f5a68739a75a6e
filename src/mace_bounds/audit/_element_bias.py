"""The error that each element brings: ridge regression of signed errors on atomic fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.audit._atlas import discoveries
from mace_bounds.audit._table import MEV_PER_EV

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    names, code = np.unique(np.asarray(formulas, dtype=str), return_inverse=True)
    known = [Composition(name).fractional_composition.get_el_amt_dict() for name in names]
    elements = sorted(set().union(*known)) if known else []
    fractions = np.array([[one.get(symbol, 0.0) for symbol in elements] for one in known])[code]
    penalty = _penalty(fractions, error)
    bias = _ridge(fractions, error, np.ones(len(error)), penalty)
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            _ridge(
                fractions,
                error,
                rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[code],
                penalty,
            )
            for _ in range(N_BOOTSTRAP)
        ]
    )
    spread = draws.std(axis=0, ddof=1)
    p = 2 * norm.sf(np.abs(bias) / np.maximum(spread, np.finfo(float).tiny))
    return pd.DataFrame(
        {
            "element": elements,
            "n": (fractions > 0).sum(axis=0),
            "n_compositions": [sum(symbol in one for one in known) for symbol in elements],
            "bias_mev_per_atom": bias * MEV_PER_EV,
            "standard_error_mev_per_atom": spread * MEV_PER_EV,
            "p_value": p,
            "significant": discoveries(p),
        }
    )


def _ridge(x: Array, y: Array, weights: NDArray[np.generic], penalty: float) -> Array:
    w = np.asarray(weights, dtype=np.float64)[:, None]
    return np.asarray(np.linalg.solve((x * w).T @ x + penalty * np.eye(x.shape[1]), (x * w).T @ y))


def _penalty(x: Array, y: Array) -> float:
    """Penalty of least generalised cross-validation score."""
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    rest = float(y @ y - projected @ projected)
    scores = []
    for penalty in _PENALTIES:
        kept = s**2 / (s**2 + penalty)
        scores.append((rest + np.sum(((1 - kept) * projected) ** 2)) / (len(y) - kept.sum()) ** 2)
    return float(_PENALTIES[int(np.argmin(scores))])
