"""A calibrated head: POPS posterior, scale and conformal quantiles, fixed to one frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones import FEW, Backbone, FeatureKind, Golden, golden_of
from mace_bounds.calibration.centre import Centre
from mace_bounds.calibration.inputs import DesignRows, head_inputs, scale_inputs
from mace_bounds.calibration.kept_rows import KeptRows
from mace_bounds.calibration.layer import ConformalLayer, Intervals, conformal_groups, source_groups
from mace_bounds.calibration.material import Material, unknown_families
from mace_bounds.calibration.novelty import Novelty
from mace_bounds.calibration.scale import ScaleModel
from mace_bounds.calibration.schema import HeadIdentity, check_tensors, read_config
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest
from mace_bounds.head import (
    PopsConfig,
    PopsHead,
    predict,
    read_beside,
    read_head_folder,
    tensors_named,
    tensors_under,
    write_head,
)
from mace_bounds.levels import Levels
from mace_bounds.metrics import Membership, chemistry_classes
from mace_bounds.structures import compositions_in

_COMPOSITIONS = ("fit_compositions", "calibration_compositions")
_TRAINING = "training_compositions"


@dataclass(frozen=True, eq=False)
class FoldHead:
    """The head of all folds but one, which gives the left-out scores of that fold."""

    pops: PopsHead
    centre: Centre
    scale: ScaleModel  # as in :class:`CalibratedHead`

    def centre_and_sigma(self, rows: DesignRows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre and σ of rows, shape (n,) each, eV/atom."""
        pops = predict(self.pops, rows.x)
        return self.centre.residual(pops.mean, rows.fractions), self.scale.sigma(scale_inputs(pops, rows))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Every array; the plain values go to :meth:`to_config`."""
        pops, scale = (
            tensors_named("pops", self.pops.to_tensors()),
            tensors_named("scale", self.scale.to_tensors()),
        )
        return {**pops, **scale}

    def to_config(self) -> dict[str, Any]:
        """Plain values for config.json, but for the settings of the POPS fit, which all folds share."""
        return {"centre": self.centre.to_config(), "scale": self.scale.to_config()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any], settings: PopsConfig
    ) -> FoldHead:
        """Rebuild it from :meth:`to_tensors` and :meth:`to_config`."""
        scale = ScaleModel.from_tensors(tensors_under(tensors, "scale"), config["scale"])
        centre = Centre.from_config(config["centre"], len(scale.seen_elements))
        return cls(PopsHead.from_tensors(tensors_under(tensors, "pops"), settings), centre, scale)


@dataclass(frozen=True, eq=False)
class CalibratedHead:
    """Everything that turns features of one frozen model into intervals; see :func:`fit_head`.

    Attributes
    ----------
    identity : HeadIdentity
        The model and the feature columns.
    pops : PopsHead
        Refit mean and misspecification posterior.
    centre : Centre
        Where intervals are centred: the model's own energy, or a correction that earned its place.
    scale : ScaleModel
        σ(x).
    conformal : ConformalLayer
        Left-out scores that turn σ into intervals.
    folds : tuple of FoldHead
        Heads that left the scores out; none where a calibration split did.
    leverage_limit : float
        Largest leverage of a composition left out in cross-fitting.
    energy_range_ev_per_atom : tuple of float
        Smallest and largest energy that the model gave a row of the head's data, over its fixed part, eV/atom; see
        :func:`energy_over_fixed`.
    fit_compositions, calibration_compositions : ndarray of uint64
        Keys of the compositions that were used, sorted.
    provenance : dict
        Data, splits, seed, settings, versions, licence and measured coverage, as plain values.
    novelty : Novelty or None
        Tells structures unlike those of the fit; None where it was not fitted.
    kept_rows : KeptRows or None
        Labelled rows of its own data, to name those that are nearest to a structure; None where it was fitted without.
    training_compositions : ndarray of uint64 or None
        Keys of the compositions that the model's training has seen, sorted; None where they are not known.
    material : Material or None
        What it is beside its bounds where it is of one chemistry; None for a head of all.
    beside : dict of str to bytes
        Further files of its folder, by name, such as its joint errors; none where there are none.
    name, digest : str
        Name of its folder and SHA-256 of what is in it; ``"in memory"`` and empty where it was not read from one.
    """

    identity: HeadIdentity
    pops: PopsHead
    centre: Centre
    scale: ScaleModel
    conformal: ConformalLayer
    folds: tuple[FoldHead, ...]
    leverage_limit: float
    energy_range_ev_per_atom: tuple[float, float]
    fit_compositions: NDArray[np.uint64]
    calibration_compositions: NDArray[np.uint64]
    provenance: dict[str, Any] = field(default_factory=dict)
    novelty: Novelty | None = None
    kept_rows: KeptRows | None = None
    training_compositions: NDArray[np.uint64] | None = None
    material: Material | None = None
    beside: dict[str, bytes] = field(default_factory=dict)
    name: str = "in memory"
    digest: str = ""

    def __repr__(self) -> str:
        model = f"{self.identity.model} {self.identity.model_digest[:12]}"
        return f"CalibratedHead({self.name!r} for {model}, levels {self.levels}, scale {self.scale.kind})"

    @property
    def levels(self) -> Levels:
        """Nominal coverages it is calibrated for."""
        return self.conformal.levels

    @property
    def wants_atoms(self) -> bool:
        """Whether it grades single atoms, for which their features are needed."""
        return self.novelty is not None and self.novelty.wants_atoms

    @property
    def refit(self) -> bool:
        """Whether intervals are centred on anything but the model's own energy."""
        return self.centre.moves

    @property
    def guarantee(self) -> str:
        """What is promised: ``every-source`` or ``pooled``; see :class:`FitConfig`."""
        return "every-source" if self.conformal.sources else "pooled"

    @property
    def published(self) -> bool:
        """Whether it bounds energies of another model than the one that gives its features."""
        return bool(self.identity.features_of or self.provenance.get("published"))

    def check_fits(
        self,
        model: str,
        model_digest: str,
        model_head: str,
        kind: str,
        energies_of: str = "",
        golden: Golden | None = None,
    ) -> None:
        """Refuse features of another model or kind, and energies of another model (:class:`HeadError`).

        Parameters
        ----------
        model, model_digest, model_head, kind : str
            Of the features.
        energies_of : str
            The model whose energies are to be bounded, where it is another one.
        golden : Golden, optional
            What the model of the features gives for a few small cells. A model with the head's digest is refused where
            it differs; one with another digest fits where it does not, and its tensors are laid out in another way.
        """
        own = self.identity
        if energies_of != (own.model if self.published else ""):
            raise HeadError(
                f"the head bounds energies of {own.model}, and these are of {energies_of or model}; use a head that "
                "was fitted for these, or give the energies it is for (score --predictions)."
            )
        difference, converted = "", False
        if own.golden is not None and golden is not None:
            difference = own.golden.difference(golden)
            converted = "" != own.golden.layout != golden.layout != ""
        same = model_digest == own.model_digest
        if model_head != own.model_head or not (same or (converted and not difference)):
            raise HeadError(
                f"the head belongs to {own.backbone} (head {own.model_head}, digest {own.model_digest[:12]}), and the "
                f"features are of {model} (head {model_head}, digest {model_digest[:12]})"
                f"{f', another network: {difference}' if difference else ''}; use a head that was fitted for this "
                "model."
            )
        if difference:
            raise HeadError(
                f"{model} has the tensors of {own.backbone}, to which the head belongs, but is built in another way: "
                f"{difference}; use the model as it was when the head was made, or fit a head for this one."
            )
        if kind != own.kind:
            raise HeadError(
                f"the head takes {own.kind} features, and these are {kind}; extract the features again."
            )

    def check_model(self, model: Backbone) -> None:
        """:meth:`check_fits` for a model that gives features of the head's kind."""
        own, golden = self.identity, None
        if own.golden is not None:
            kind: FeatureKind = "descriptors" if own.kind == "descriptors" else "readout"
            golden = golden_of(model, kind, FEW if model.digest == own.model_digest else None)
        energies_of = own.model if self.published else ""
        self.check_fits(model.name, model.digest, model.head, own.kind, energies_of, golden)

    def check_store(self, manifest: Manifest) -> None:
        """:meth:`check_fits` for a feature store."""
        of = manifest
        self.check_fits(of.model, of.model_digest, of.model_head, of.kind, of.energies_of, of.golden)

    def intervals(self, rows: FeatureRows, levels: Levels | None = None) -> Intervals:
        """Predict rows that have features, in their order.

        Parameters
        ----------
        rows : FeatureRows
            Without failed rows (:meth:`FeatureRows.scored`).
        levels : Levels, optional
            Some of the levels, where the others are not needed.
        """
        design = head_inputs(rows, composition=self.identity.composition)
        pops = predict(self.pops, design.x)
        inputs = scale_inputs(pops, design)
        sigma = self.scale.sigma(inputs)
        centre = self.centre.residual(pops.mean, design.fractions)
        cells = chemistry_classes(rows.column("elements").tolist())
        groups = self._groups(rows, cells, design)
        by_fold = [fold.centre_and_sigma(design) for fold in self.folds] or [(centre, sigma)]
        fold_centre, fold_sigma = (np.stack(part) for part in zip(*by_fold, strict=True))
        levels = self.levels if levels is None else levels
        lower, upper = self.conformal.bounds_at(fold_centre, fold_sigma, groups, [*levels])
        unknown = unknown_families(self.material, rows.column("source"), self.conformal.sources)
        if self.material is not None and self.material.left_out and unknown.any():
            half = self.material.half_widths(pops)[:, [self.levels.index(level) for level in levels]].T
            lower, upper = np.where(unknown, centre - half, lower), np.where(unknown, centre + half, upper)
        return Intervals(
            centre=centre,
            refit=pops.mean,
            sigma=sigma,
            levels=levels,
            lower=lower.T,
            upper=upper.T,
            pops=pops,
            extrapolation_grade=pops.leverage / self.leverage_limit,
            unseen=self.scale.unseen(inputs),
            cells=cells,
            groups=groups,
            fold_centre=fold_centre,
            fold_sigma=fold_sigma,
            unknown_family=unknown,
            novelty=None if self.novelty is None else self.novelty.grade(rows, design.x),
        )

    def _groups(self, rows: FeatureRows, cells: NDArray[np.str_], design: DesignRows) -> Membership:
        sources = source_groups(rows.column("source").tolist(), self.conformal.sources)
        return conformal_groups(cells, design.fractions, sources=sources)

    def groups(self, rows: FeatureRows, design: DesignRows) -> Membership:
        """Which scores give rows their intervals: those of their source and chemistry, where it has some of its own."""
        return self._groups(rows, chemistry_classes(rows.column("elements").tolist()), design)

    def min_covering_level(self, intervals: Intervals, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Level above which a row's intervals hold its residual, shape (n,); NaN without one."""
        out = np.full(len(residual), np.nan)
        known = ~np.isnan(residual)
        out[known] = self.conformal.min_covering_level(
            intervals.fold_centre[:, known],
            intervals.fold_sigma[:, known],
            Membership(intervals.groups.names, intervals.groups.matrix[known]),
            residual[known],
        )
        if self.material is not None and self.material.left_out:
            apart = self.material.covering_level(intervals.pops, residual - intervals.centre, self.levels)
            out = np.where(known & intervals.unknown_family, apart, out)
        return out

    def roles(
        self, formulas: Sequence[str], training_keys: NDArray[np.uint64] | None = None
    ) -> NDArray[np.str_]:
        """What each composition was used for before; what the head itself did with it comes first.

        Parameters
        ----------
        formulas : sequence of str, shape (n,)
            Reduced formulas.
        training_keys : ndarray of uint64, optional
            Compositions that the model's training has seen, where known; those that the head keeps by default.

        Returns
        -------
        ndarray of str, shape (n,)
            The first that applies of ``"fit"`` and ``"calibration"`` (of this head), ``"model_training"`` (the model's
            training, and not used by the head) and ``"unseen"``, or ``"unknown"`` where it is not known what
            the model's training has seen.
        """
        keys = self.training_compositions if training_keys is None else training_keys
        roles = np.full(len(formulas), "unknown" if keys is None else "unseen", dtype="<U14")
        roles[compositions_in(formulas, keys)] = "model_training"
        roles[compositions_in(formulas, self.calibration_compositions)] = "calibration"
        roles[compositions_in(formulas, self.fit_compositions)] = "fit"
        return roles

    def as_fold(self) -> FoldHead:
        """What it says of rows without the heads of its folds."""
        return FoldHead(self.pops, self.centre, self.scale)

    def save(self, folder: str | Path, card: str, *, overwrite: bool = False) -> Path:
        """Write the head folder (safetensors + JSON + card); see :func:`load_head`."""
        tensors: dict[str, NDArray[Any]] = tensors_named("layer", self.conformal.to_tensors())
        tensors |= self.as_fold().to_tensors()
        for i, fold in enumerate(self.folds):
            tensors |= tensors_named(f"fold{i}", fold.to_tensors())
        tensors |= {name: getattr(self, name).view(np.int64) for name in _COMPOSITIONS}
        config = {
            "identity": asdict(self.identity),
            "pops": self.pops.config.to_dict(),
            **self.as_fold().to_config(),
            "layer": self.conformal.to_config(),
            "folds": [fold.to_config() for fold in self.folds],
            "leverage_limit": self.leverage_limit,
            "energy_range_ev_per_atom": list(self.energy_range_ev_per_atom),
            "provenance": self.provenance,
        }
        if self.novelty is not None:
            tensors |= tensors_named("novelty", self.novelty.to_tensors())
            config["novelty"] = self.novelty.to_config()
        if self.material is not None:
            config["material"] = self.material.to_config()
        if self.kept_rows is not None:
            tensors |= tensors_named("kept_rows", self.kept_rows.to_tensors())
        if self.training_compositions is not None:
            tensors[_TRAINING] = self.training_compositions.view(np.int64)
        return write_head(folder, tensors, config, card, overwrite=overwrite, beside=self.beside)


def load_head(folder: str | Path) -> CalibratedHead:
    """Read a calibrated head; no code from the folder runs.

    Raises
    ------
    HeadError
        If the folder is no head, damaged, or of another format.
    """
    tensors, config = read_head_folder(folder)
    checked = read_config(config)
    check_tensors(tensors, checked)
    try:
        settings = PopsConfig.from_dict(config["pops"])
        full = FoldHead.from_tensors(tensors, config, settings)
        return CalibratedHead(
            identity=checked.identity,
            pops=full.pops,
            centre=full.centre,
            scale=full.scale,
            conformal=ConformalLayer.from_tensors(tensors_under(tensors, "layer"), config["layer"]),
            folds=tuple(
                FoldHead.from_tensors(tensors_under(tensors, f"fold{i}"), fold, settings)
                for i, fold in enumerate(config["folds"])
            ),
            leverage_limit=checked.leverage_limit,
            energy_range_ev_per_atom=checked.energy_range_ev_per_atom,
            fit_compositions=tensors["fit_compositions"].view(np.uint64),
            calibration_compositions=tensors["calibration_compositions"].view(np.uint64),
            provenance=dict(config["provenance"]),
            novelty=Novelty.from_tensors(tensors_under(tensors, "novelty"), config["novelty"])
            if config.get("novelty") is not None
            else None,
            kept_rows=KeptRows.from_tensors(kept) if (kept := tensors_under(tensors, "kept_rows")) else None,
            training_compositions=tensors[_TRAINING].view(np.uint64) if _TRAINING in tensors else None,
            material=checked.material,
            beside=read_beside(folder),
            name=Path(folder).resolve().name,
            digest=checked.digest,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HeadError(
            f"a part of the head in {folder} is missing or malformed ({error}); fit it again."
        ) from error
