"""How many threads linear algebra gets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one BLAS thread.

    A fit is thousands of products of matrices with some hundred columns: threads wait for each other longer than
    they compute (317 rows on two busy cores: 6 s of processor time with one, 45 s with two).
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: NumPy's BLAS, and torch where it has been imported.

    Sums over several threads are rounded differently, and processes that each take all cores wait for each other.
    """
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = 0 if torch is None else torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
