"""Other ways to get error bars, on the same features and with one interface.

``BASELINES[name].fit(rows, seed).predict(rows)`` gives a centre and a width σ for every structure, in eV/atom. A fit
sees training rows only, is the same for the same seed and any order of the rows, takes 50 to 1e5 rows, and
never gives a width of zero. Widths become intervals by the conformal quantiles of :mod:`mace_bounds.calibration`.

======================== ===================================================================================
``constant``             one width: the root mean square error
``bayesian_ridge``       linear model by evidence, own mean; width of the posterior only (epistemic)
``bayesian_ridge_noise`` the same with the variance of the noise added
``llpr``                 last-layer prediction rigidity, α √(zᵀ(C + ς²)⁻¹z), α and ς by likelihood
``committee``            32 ridge heads on bootstraps of the compositions, own mean; α × their spread
``d_optimality``         a + b·log(1 + γ), γ the MaxVol grade against all training rows
``d_optimality_local``   the same against the rows of the nearest cluster
``quantile``             learned quantile of |error|, log-linear in the features, pinball loss
``llpr_readout``         LLPR on what the readouts' last linear layers take, as metatrain has it (no fractions)
``llpr_linear``          LLPR on what linear readouts take alone
``readout_ensemble``     32 refits of the readouts' last layers, each to half of the compositions; α × spread
``quantile_boosting``    5 and 95 % quantiles by boosted trees, own middle; only with scikit-learn
``gmm_gamma``            a + b·log(1 + γ), γ the Mahalanobis distance to the nearest cluster, as in GRACE
``residual_pops``        POPS hypercube with rows chosen by residual, as popsregression 0.5, own mean
``popsregression``       the authors' own POPS package, own mean and width; only where it is installed
======================== ===================================================================================

``constant``, those of ``llpr`` and of ``d_optimality``, ``quantile`` and ``gmm_gamma`` are widths about ``rows.centre``
and learn from y - centre; the others predict y with a mean of their own.
"""

from importlib.util import find_spec

from mace_bounds.benchmark.baselines.grades import DOptimality, MixtureGamma
from mace_bounds.benchmark.baselines.interface import (
    Baseline,
    BaselineRows,
    FittedBaseline,
    OnPart,
    Widths,
)
from mace_bounds.benchmark.baselines.quantiles import Quantile, QuantileBoosting
from mace_bounds.benchmark.baselines.regressions import (
    BayesianRidge,
    Committee,
    PopsByResidual,
    PopsRegression,
)
from mace_bounds.benchmark.baselines.widths import Constant, Llpr, ModelSpread

_ALL: tuple[Baseline, ...] = (
    Constant(),
    BayesianRidge("bayesian_ridge", noise=False),
    BayesianRidge("bayesian_ridge_noise", noise=True),
    Llpr(),
    Committee(),
    DOptimality("d_optimality", most_clusters=1, rank_tolerance=1e-6),
    DOptimality("d_optimality_local", most_clusters=8, rank_tolerance=1e-2),  # a cluster has few rows
    Quantile(),
    OnPart("llpr_readout", Llpr(), "features"),
    OnPart("llpr_linear", Llpr(), "linear"),
    OnPart("readout_ensemble", Committee(share=0.5), "features"),
    *([QuantileBoosting()] if find_spec("sklearn") else []),
    MixtureGamma(),
    PopsByResidual(),
    *([PopsRegression()] if find_spec("popsregression") else []),
)
BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
"""Every baseline that can be used here, by name; a new one is a file and a line (``docs/dev/add-a-baseline.md``)."""

__all__ = ["BASELINES", "Baseline", "BaselineRows", "FittedBaseline", "ModelSpread", "Widths"]
