"""Labelled frames of one chemistry to a potential with error bars: refit, POPS on all rows, conformal per family.

References: T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025); I. Maliyov, P. Grigorev and
T. D. Swinburne, npj Comput. Mater. 11, 22 (2025), whose rows are energies, forces and stress of tungsten as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones import Backbone
from mace_bounds.bounds import read_card
from mace_bounds.calibration import (
    CalibratedHead,
    Centre,
    FitConfig,
    HeadIdentity,
    LeftOutScores,
    assign_splits,
    conformal_layer,
    energy_over_fixed,
    fingerprint,
    fit_scale,
    group_folds,
    head_inputs,
    kept_rows,
    measured_novelty,
    residual_ev_per_atom,
    scale_inputs,
    source_groups,
)
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, Manifest, checked_labels
from mace_bounds.fitting.material.card import material_card
from mace_bounds.fitting.material.config import MaterialConfig
from mace_bounds.fitting.material.derivatives import (
    GradientShards,
    Progress,
    feature_store,
    gradient_shards,
)
from mace_bounds.fitting.material.frames import Frame, chosen_frames
from mace_bounds.fitting.material.measuring import measure
from mace_bounds.fitting.material.regression import (
    MINIMUM_FAMILY,
    MINIMUM_FRAMES,
    MaterialRows,
    fit_rows,
    left_out,
    left_out_families,
    material_of,
    row_scales,
)
from mace_bounds.fitting.run import CardNotes, about_data
from mace_bounds.head import kept_warnings, predict
from mace_bounds.levels import LEVELS
from mace_bounds.structures import composition_keys
from mace_bounds.threads import one_blas_thread

if TYPE_CHECKING:
    import pandas as pd

    Array = NDArray[np.float64]

MAX_ATOMS = 100_000  # from whose features the grades of single atoms are learnt
N_KEPT = 500  # labelled frames that a head keeps for ``explain``


@dataclass(frozen=True, eq=False, repr=False)
class MaterialReport:
    """A head of one chemistry and what was measured on frames that took no part."""

    head: CalibratedHead
    # one line per family: n_fit, n_test, mae_mev_per_atom, mae_forces_ev_per_a, covered (at 95 %), in_envelope
    families: pd.DataFrame
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"MaterialReport({self.head!r}, {len(self.families)} families)"

    def save(
        self, folder: str | Path, notes: CardNotes = CardNotes(), *, overwrite: bool = False
    ) -> MaterialReport:
        """Write the head and its card into a folder; HeadError if it may not be written."""
        head = replace(self.head, provenance={**self.head.provenance, **asdict(notes)})
        written = head.save(folder, material_card(Path(folder).name, head), overwrite=overwrite)
        head = replace(head, name=written.resolve().name, digest=read_card(written).digest)
        return replace(self, head=head, folder=written)


@one_blas_thread
def fit_material(
    frames: Sequence[Frame],
    model: Backbone,
    work: str | Path,
    config: MaterialConfig | None = None,
    *,
    progress: Progress = lambda *_: None,
) -> MaterialReport:
    """Fit the readout of a frozen model to one chemistry, with POPS bounds and calibrated intervals.

    Parameters
    ----------
    frames : sequence of Frame
        Of :func:`read_frames`, with energies of one kind; forces and stress where there are some.
    model : Backbone
        The frozen model; one with derivatives, unless ``config.atoms_per_family`` is 0.
    work : path
        Folder for features and derivatives, which take nearly all of the time: a run that was stopped goes on there.
    config : MaterialConfig
    progress : callable, optional
        Called with what is computed, how many frames are done, and how many there are.

    Returns
    -------
    MaterialReport

    Raises
    ------
    HeadError
        If there are too few frames, or ids occur twice.
    ModelError
        If the model gives no derivatives.
    LabelError
        If labels are no energies.
    """
    config = config or MaterialConfig()
    ids = [frame.record.id for frame in frames]
    if len(frames) < MINIMUM_FRAMES or len(set(ids)) < len(ids):
        raise HeadError(
            f"there are {len(frames)} frames with {len(set(ids))} ids; a material head needs {MINIMUM_FRAMES} frames "
            "or more, each with an id of its own (info['id'])."
        )
    work = Path(work)
    store = feature_store(frames, model, work / "features", progress)
    found = store.read(max_atoms=MAX_ATOMS)
    if found.table["id"].tolist() != ids:
        raise HeadError(f"{work} holds features of other frames; choose another folder.")
    chosen = chosen_frames(frames, config.atoms_per_family)
    shards = gradient_shards(frames, chosen, model, work / "derivatives", progress)
    labels = checked_labels(found)
    good = labels.table["reason"].isna().to_numpy() & labels.table["energy_ev"].notna().to_numpy()
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        why = labels.table["reason"].iloc[first] or labels.table["label_reason"].iloc[first]
        raise HeadError(f"the frame {ids[first]} cannot be fitted: {why}; leave such frames out.")
    return fit_features(labels, store.manifest, shards, config)


def fit_features(
    found: FeatureRows, manifest: Manifest, shards: GradientShards, config: MaterialConfig
) -> MaterialReport:
    """:func:`fit_material` after all that needs the network has been computed."""
    design = head_inputs(found, composition=True)
    families = found.table["source"].to_numpy(dtype=str)
    rows = MaterialRows(design.x, residual_ev_per_atom(found), design.fractions, families, shards)
    ids = found.table["id"].to_numpy(dtype=str)
    splits = assign_splits(ids, {"fit": 1.0 - config.test_share, "test": config.test_share}, config.seed)
    away = np.isin(families, config.left_out)
    if unknown := sorted(set(config.left_out) - set(families)):
        raise HeadError(
            f"no frame is of the family {unknown[0]}, which was to be left out; there are "
            f"{', '.join(sorted(set(families)))}."
        )
    splits = np.where(away, "test", splits)
    fit = splits == "fit"
    if (n_left := int((~away).sum())) < MINIMUM_FRAMES:
        raise HeadError(
            f"{n_left} frames are left to fit; a material head needs {MINIMUM_FRAMES}, so leave out less."
        )
    with kept_warnings() as stopped_early:
        scale = row_scales(rows, fit, config)
        pops = fit_rows(rows, fit, scale)
        left = left_out(rows, fit, group_folds(ids, config.n_folds, config.seed + 1), scale)
        families_apart = left_out_families(rows, fit, scale)
    # one head gives the widths of calibration and of use: the unclipped boxes of the folds differ by single rows
    inputs = scale_inputs(predict(pops, rows.x[fit]), design.take(fit))
    error = rows.y[fit] - left.mean
    sigma = fit_scale("pops", inputs, error, ids[fit], config.seed)
    named, counts = np.unique(families[fit], return_counts=True)
    known = tuple(str(name) for name, n in zip(named, counts, strict=True) if n >= MINIMUM_FAMILY)
    groups = source_groups(families[fit].tolist(), known)
    groups.matrix[~np.isin(families[fit], known)] = False
    scores = np.abs(error) / sigma.sigma(inputs)
    layer = conformal_layer(LeftOutScores(scores), groups, LEVELS, minimum_source=MINIMUM_FAMILY)
    energies = energy_over_fixed(found)[fit]
    elements = tuple(int(z) + 1 for z in np.flatnonzero(design.fractions.any(axis=0)))
    material, without = material_of(elements, config.reference, families_apart, layer.levels.values)
    formulas = found.table["formula"].tolist()
    head = CalibratedHead(
        identity=_identity(manifest),
        pops=pops,
        centre=Centre(1.0, np.zeros(design.fractions.shape[1])),
        scale=sigma,
        conformal=layer,
        folds=(),
        leverage_limit=float(left.leverage.max()),
        energy_range_ev_per_atom=(float(energies.min()), float(energies.max())),
        fit_compositions=composition_keys(formulas),
        calibration_compositions=np.empty(0, dtype=np.uint64),
        novelty=measured_novelty(found, fit, composition=True, seed=config.seed),
        material=material,
        provenance={
            **about_data(found),
            **asdict(CardNotes()),
            "settings": {**asdict(config), "levels": list(layer.levels), "split_by": "frame"},
            "levels": list(layer.levels),
            "rows": {name: int((splits == name).sum()) for name in ("fit", "test")},
            "row_scales": scale,
            "left_out_families": without,
            "data_sha256": fingerprint(found),
            "warnings": stopped_early,
            "left_out": {},
            "includes_training": True,
        },
    )
    head = replace(head, kept_rows=kept_rows(head, found, splits, FitConfig(kept_rows=N_KEPT)))
    by_family, covered = measure(head, found, rows, splits == "test")
    about = {**head.provenance, "families": by_family.to_dict("records"), "coverage": covered}
    return MaterialReport(replace(head, provenance=about), by_family)


def _identity(manifest: Manifest) -> HeadIdentity:
    return HeadIdentity(
        model=manifest.model,
        model_digest=manifest.model_digest,
        model_head=manifest.model_head,
        kind=manifest.kind,
        columns=manifest.columns,
        composition=True,
        model_file_sha256=manifest.model_file_sha256,
        golden=manifest.golden,
    )
