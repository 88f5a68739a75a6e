"""The settings of a POPS fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mace_bounds.errors import HeadError
from mace_bounds.head.posteriors import POSTERIORS


@dataclass(frozen=True)
class PopsConfig:
    """Settings of a POPS fit; the defaults are the ones the project measured."""

    # rows at or above this percentile of leverage make the posterior, in [0, 100)
    leverage_percentile: float = 50.0
    # percentage cut from each end of the corrections along every principal axis, in [0, 50]
    clip_percent: float = 0.5
    # principal axes whose second moment is not above this fraction of the largest get no width
    mode_threshold: float = 1e-8
    # what ``misspecification_std`` and support mean, a name in :data:`~mace_bounds.head.POSTERIORS`: uniform
    # on the clipped box (``hypercube``), the corrections themselves (``ensemble``), or uniform on an
    # ellipsoid fitted to leave-one-out residuals (``ellipsoid``)
    posterior: str = "hypercube"
    also: tuple[str, ...] = ()  # further posteriors that are fitted beside it
    ellipsoid_rank: int = 8  # dimensions q of the ellipsoid, in [2, 64]
    # percentage of the rows whose leave-one-out residual may be outside the reach of its barrier, in (0, 50];
    # see :mod:`mace_bounds.head.posteriors.ellipsoid`
    ellipsoid_outside_percent: float = 10.0
    standardize: bool = True  # centre (with ``fit_intercept``) and scale the columns before the fit
    # append a constant column, which takes part in prior and posterior like any other
    fit_intercept: bool = True
    # alpha_1, alpha_2, lambda_1, lambda_2: gamma hyperpriors of noise and weight precision, as in scikit-
    # learn's ``BayesianRidge``
    alpha_1: float = 1e-6
    alpha_2: float = 1e-6
    lambda_1: float = 1e-6
    lambda_2: float = 1e-6
    max_iter: int = 20_000  # largest number of steps of the evidence iteration
    # the evidence iteration stops when both precisions change by less than this, relatively
    relative_tolerance: float = 1e-12
    # true in a head fitted by :func:`fit_robust`: rows were down-weighted by Huber's rule on leave-one-out
    # residuals
    huber: bool = False
    # residuals beyond this many robust standard deviations lose weight (1.345: 95 % efficiency for Gaussian
    # noise)
    huber_threshold: float = 1.345
    huber_max_iter: int = 30  # largest number of re-weighting steps
    huber_tolerance: float = 1e-3  # re-weighting stops when no weight changes by more than this

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        for name in self.posteriors:
            if name not in POSTERIORS:
                raise HeadError(
                    f"the posterior {name!r} is none of {', '.join(POSTERIORS)}; choose one of these."
                )
        checks = {
            "leverage_percentile": 0.0 <= self.leverage_percentile < 100.0,
            "clip_percent": 0.0 <= self.clip_percent <= 50.0,
            "mode_threshold": self.mode_threshold > 0.0,
            "ellipsoid_rank": 2 <= self.ellipsoid_rank <= 64,
            "ellipsoid_outside_percent": 0.0 < self.ellipsoid_outside_percent <= 50.0,
            "max_iter": self.max_iter >= 1,
            "relative_tolerance": self.relative_tolerance > 0.0,
            "huber_threshold": self.huber_threshold > 0.0,
            "huber_max_iter": self.huber_max_iter >= 1,
            "huber_tolerance": self.huber_tolerance > 0.0,
        } | {name: getattr(self, name) > 0.0 for name in ("alpha_1", "alpha_2", "lambda_1", "lambda_2")}
        for name, good in checks.items():
            if not good:
                raise HeadError(
                    f"PopsConfig.{name} is {getattr(self, name)!r}, which is outside its range; see its "
                    "documentation."
                )

    @property
    def posteriors(self) -> tuple[str, ...]:
        """Every posterior that is fitted, the one that counts first."""
        return (self.posterior, *(name for name in self.also if name != self.posterior))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PopsConfig:
        """Build the settings from :meth:`to_dict`'s values; unknown or ill-typed ones raise ``HeadError``."""
        known = {f.name: f.default for f in fields(cls)}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        for name, value in values.items():
            if name not in known:
                raise HeadError(
                    f"the head's settings hold {name!r}, which this version does not know; upgrade "
                    "mace-bounds."
                )
            expected: tuple[type, ...] = (int, float) if type(known[name]) is float else (type(known[name]),)
            if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
                raise HeadError(
                    f"the head's setting {name!r} is {value!r}, of the wrong type; fit the head again."
                )
        return cls(**values)
