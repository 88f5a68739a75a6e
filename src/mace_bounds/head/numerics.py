"""The one way in which losses are minimised, what happens where it fails, and two robust statistics."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from scipy.special import ndtri

from mace_bounds.errors import HeadError
from mace_bounds.head.chunks import Array


class FitWarning(UserWarning):
    """A part of a fit stopped before it converged: its result is usable, but not the best; a head keeps the text."""


@contextmanager
def kept_warnings() -> Iterator[list[str]]:
    """Collect the texts of :class:`FitWarning` in place of showing them, each once with how often it came."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        yield texts
    counts = Counter(str(warning.message) for warning in caught if issubclass(warning.category, FitWarning))
    texts += [text if n == 1 else f"{text}, {n} times" for text, n in counts.items()]
    for other in caught:
        if not issubclass(other.category, FitWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def minimise(
    loss: Callable[[Array], tuple[float, Array]],
    start: Array,
    *,
    name: str,
    max_iter: int = 15_000,
    ftol: float = 1e7 * np.finfo(np.float64).eps,
    gtol: float = 1e-5,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
    **options: float,
) -> Array:
    """Minimise a smooth function by L-BFGS-B, which is deterministic.

    Parameters
    ----------
    loss : callable
        From parameters (p,) to the value and its gradient (p,).
    start : ndarray, shape (p,)
        Where the search begins.
    name : str
        What is fitted, for messages.
    max_iter : int
        Most steps.
    ftol, gtol : float
        The search ends where a step changes the value by less than ``ftol``, relatively, or no component of the
        gradient is above ``gtol``; scipy's by default.
    bounds : sequence of pairs, optional
        Least and largest value of each parameter.
    **options
        Further options of scipy's ``L-BFGS-B``.

    Returns
    -------
    ndarray, shape (p,)
        The parameters.

    Raises
    ------
    HeadError
        If the result is not finite.

    Warns
    -----
    FitWarning
        If the search ended otherwise than by ``ftol`` or ``gtol``.
    """
    from scipy.optimize import minimize

    stop = {"maxiter": max_iter, "ftol": ftol, "gtol": gtol, **options}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=stop)  # type: ignore[call-overload]
    if not np.isfinite(found.x).all():
        raise HeadError(f"the fit of {name} has no finite result; look for extreme values among the labels.")
    if not found.success:
        reason = " ".join(str(found.message).split()).rstrip(".").lower()
        warnings.warn(f"the fit of {name} did not converge ({reason})", FitWarning, stacklevel=2)
    return np.asarray(found.x, dtype=np.float64)


MAD_TO_STD = float(1.0 / ndtri(0.75))
"""From a median absolute deviation to a standard deviation, for Gaussian noise."""


def weighted_quantile(values: Array, weights: Array, mass: float) -> float:
    """Smallest value up to which the weights sum to ``mass``; the largest value where they never do."""
    order = np.argsort(values, kind="stable")
    position = int(np.searchsorted(np.cumsum(weights[order]), mass))
    return float(values[order[min(position, len(values) - 1)]])
