"""A calibrated head: POPS posterior, scale and conformal quantiles, fixed to one frozen model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration._chemistry import chemistry_classes
from mace_bounds.calibration._conformal import ConformalTable
from mace_bounds.calibration._scale import ScaleModel
from mace_bounds.calibration._scale_inputs import ScaleInputs
from mace_bounds.calibration._splits import compositions_in
from mace_bounds.errors import HeadError
from mace_bounds.features import atomic_fractions, design_matrix
from mace_bounds.head import PopsConfig, PopsHead, PopsPrediction, predict, read_head_folder, write_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mace_bounds.features import FeatureRows

_TABLES = ("conformal", "curve")
_COMPOSITIONS = ("fit_compositions", "calibration_compositions")


@dataclass(frozen=True)
class HeadIdentity:
    """What a head belongs to.

    Attributes
    ----------
    model, model_digest, model_head : str
        Name of the frozen model, SHA-256 of its weights, and which of its heads.
    kind : str
        Kind of the features.
    columns : tuple of str
        Their names.
    composition : bool
        Whether atomic fractions join them.
    """

    model: str
    model_digest: str
    model_head: str
    kind: str
    columns: tuple[str, ...]
    composition: bool


@dataclass(frozen=True, eq=False)
class Intervals:
    """What a calibrated head says about rows; energies in eV/atom, relative to the model's own energy.

    Attributes
    ----------
    centre : ndarray, shape (n,)
        Middle of the intervals: the expected residual, or 0 where the frozen mean is kept.
    refit : ndarray, shape (n,)
        Expected residual of the refit head, whether it is used or not.
    sigma : ndarray, shape (n,)
        The scale σ(x).
    levels : ndarray, shape (n_levels,)
        Nominal coverages.
    half_widths : ndarray, shape (n, n_levels)
        Half-widths of the intervals.
    pops : PopsPrediction
        Everything the POPS head says.
    extrapolation_grade : ndarray, shape (n,)
        Leverage over the largest leverage among compositions left out in cross-fitting; > 1 is outside.
    unseen : ndarray of bool, shape (n,)
        Whether a row holds an element that no row of the fit had.
    cells : ndarray of str, shape (n,)
        Chemistry class, by which the quantiles are looked up.
    """

    centre: NDArray[np.float64]
    refit: NDArray[np.float64]
    sigma: NDArray[np.float64]
    levels: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    pops: PopsPrediction
    extrapolation_grade: NDArray[np.float64]
    unseen: NDArray[np.bool_]
    cells: NDArray[np.str_]

    @property
    def lower(self) -> NDArray[np.float64]:
        """Lower bounds of the residual, shape (n, n_levels)."""
        return np.asarray(self.centre[:, None] - self.half_widths)

    @property
    def upper(self) -> NDArray[np.float64]:
        """Upper bounds of the residual, shape (n, n_levels)."""
        return np.asarray(self.centre[:, None] + self.half_widths)

    def at(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of one level, two arrays of shape (n,); HeadError if it was not calibrated."""
        found = np.flatnonzero(np.isclose(self.levels, level, rtol=0, atol=1e-9))
        if found.size == 0:
            known = ", ".join(f"{x:g}" for x in self.levels)
            raise HeadError(
                f"expected one of the calibrated levels {known}, got {level:g}; choose one of these."
            )
        return self.lower[:, found[0]], self.upper[:, found[0]]


@dataclass(frozen=True, eq=False)
class CalibratedHead:
    """Everything that turns features of one frozen model into intervals; see :func:`fit_head`.

    Attributes
    ----------
    identity : HeadIdentity
        The model and the feature columns.
    pops : PopsHead
        Refit mean and misspecification posterior.
    refit : bool
        Whether intervals are centred on the refit mean (it earned its place) or on the model's own energy.
    scale : ScaleModel
        σ(x).
    conformal : ConformalTable
        Quantiles of |residual|/σ per level, overall and per chemistry class.
    curve : ConformalTable
        The same on a fine grid of levels, from which calibration curves and scores are made.
    leverage_limit : float
        Largest leverage of a composition left out in cross-fitting.
    fit_compositions, calibration_compositions : ndarray of uint64
        Keys of the compositions that were used, sorted.
    provenance : dict
        Data, splits, seed, settings, versions, licence and measured coverage, as plain values.
    """

    identity: HeadIdentity
    pops: PopsHead
    refit: bool
    scale: ScaleModel
    conformal: ConformalTable
    curve: ConformalTable
    leverage_limit: float
    fit_compositions: NDArray[np.uint64]
    calibration_compositions: NDArray[np.uint64]
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Nominal coverages it is calibrated for."""
        return tuple(float(level) for level in self.conformal.levels)

    def check_fits(self, model: str, model_digest: str, model_head: str, kind: str) -> None:
        """Refuse features that come from another model or are of another kind (:class:`HeadError`)."""
        mine = self.identity
        if model_digest != mine.model_digest or model_head != mine.model_head:
            raise HeadError(
                f"expected features of {mine.model} (head {mine.model_head}, weights {mine.model_digest[:12]}), got "
                f"{model} (head {model_head}, weights {model_digest[:12]}); use a head that was fitted for this model."
            )
        if kind != mine.kind:
            raise HeadError(f"expected {mine.kind} features, got {kind}; extract the features again.")

    def intervals(self, rows: FeatureRows) -> Intervals:
        """Predict rows that have features.

        Parameters
        ----------
        rows : FeatureRows
            Without failed rows (:meth:`FeatureRows.scored`).

        Returns
        -------
        Intervals
            In the order of the rows.
        """
        x, fractions, n_atoms = head_inputs(rows, composition=self.identity.composition)
        pops = predict(self.pops, x)
        inputs = scale_inputs(pops, fractions, n_atoms)
        sigma = self.scale.sigma(inputs)
        cells = chemistry_classes(rows.table["elements"].tolist())
        n_levels = len(self.levels)
        quantiles = np.array([self.conformal.lookup(cells, level) for level in self.levels])
        return Intervals(
            centre=pops.mean if self.refit else np.zeros(len(sigma)),
            refit=pops.mean,
            sigma=sigma,
            levels=np.asarray(self.levels),
            half_widths=sigma[:, None] * quantiles.reshape(n_levels, len(sigma)).T,
            pops=pops,
            extrapolation_grade=pops.leverage / self.leverage_limit,
            unseen=self.scale.unseen(inputs),
            cells=cells,
        )

    def roles(self, formulas: Sequence[str], backbone: NDArray[np.uint64] | None = None) -> NDArray[np.str_]:
        """What each composition was used for before; what the head itself did with it comes first.

        Parameters
        ----------
        formulas : sequence of str, shape (n,)
            Reduced formulas.
        backbone : ndarray of uint64, optional
            Compositions that the model's training has seen, where known.

        Returns
        -------
        ndarray of str, shape (n,)
            The first that applies of ``"fit"`` and ``"calibration"`` (of this head), ``"backbone"`` (the model's
            training, and not used by the head) and ``"unseen"``.
        """
        roles = np.full(len(formulas), "unseen", dtype="<U11")
        roles[compositions_in(formulas, backbone)] = "backbone"
        roles[compositions_in(formulas, self.calibration_compositions)] = "calibration"
        roles[compositions_in(formulas, self.fit_compositions)] = "fit"
        return roles

    def save(self, folder: str | Path, card: str, *, overwrite: bool = False) -> Path:
        """Write the head folder (safetensors + JSON + card); see :func:`load_head`."""
        tensors: dict[str, NDArray[Any]] = dict(self.pops.to_tensors())
        tensors |= {f"scale.{k}": v for k, v in self.scale.to_tensors().items()}
        for name in _TABLES:
            tensors |= {f"{name}.{k}": v for k, v in getattr(self, name).to_tensors().items()}
        tensors |= {name: getattr(self, name).view(np.int64) for name in _COMPOSITIONS}
        config = {
            "identity": {**self.identity.__dict__, "columns": list(self.identity.columns)},
            "pops": self.pops.config.to_dict(),
            "scale": self.scale.to_config(),
            **{name: getattr(self, name).to_config() for name in _TABLES},
            "refit": self.refit,
            "leverage_limit": self.leverage_limit,
            "provenance": self.provenance,
        }
        return write_head(folder, tensors, config, card, overwrite=overwrite)


def load_head(folder: str | Path) -> CalibratedHead:
    """Read a calibrated head; no code from the folder runs.

    Raises
    ------
    HeadError
        If the folder is no head, damaged, or of a newer format.
    """
    tensors, config = read_head_folder(folder)
    try:
        identity = dict(config["identity"])
        return CalibratedHead(
            identity=HeadIdentity(**{**identity, "columns": tuple(identity["columns"])}),
            pops=PopsHead.from_tensors(tensors, PopsConfig.from_dict(config["pops"])),
            refit=bool(config["refit"]),
            scale=ScaleModel.from_tensors(_under(tensors, "scale."), config["scale"]),
            conformal=ConformalTable.from_tensors(_under(tensors, "conformal."), config["conformal"]),
            curve=ConformalTable.from_tensors(_under(tensors, "curve."), config["curve"]),
            leverage_limit=float(config["leverage_limit"]),
            fit_compositions=tensors["fit_compositions"].view(np.uint64),
            calibration_compositions=tensors["calibration_compositions"].view(np.uint64),
            provenance=dict(config["provenance"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HeadError(
            f"expected a calibrated head in {folder}, but a part is missing or malformed ({error}); fit it again."
        ) from error


def _under(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}


def head_inputs(
    rows: FeatureRows, *, composition: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Design matrix (n, P), atomic fractions (n, 118) and sizes (n,) of rows that have features."""
    fractions = atomic_fractions(rows.table["elements"].tolist(), rows.table["counts"].tolist())
    n_atoms = rows.table["n_atoms"].to_numpy(dtype=np.float64)
    return design_matrix(rows.features, n_atoms, fractions, composition=composition), fractions, n_atoms


def scale_inputs(
    pops: PopsPrediction, fractions: NDArray[np.float64], n_atoms: NDArray[np.float64]
) -> ScaleInputs:
    """Pick what the scale sees from a POPS prediction."""
    return ScaleInputs(
        support_width=0.5 * (pops.support_upper - pops.support_lower),
        box_std=pops.misspecification_std,
        leverage=pops.leverage,
        epistemic_std=pops.epistemic_std,
        fractions=fractions,
        n_atoms=n_atoms,
    )
