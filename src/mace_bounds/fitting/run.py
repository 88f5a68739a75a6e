"""A feature store to a head folder: fit, calibrate, measure on compositions kept apart, write the card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mace_bounds.backbones import Backbone
from mace_bounds.bounds import detailed_table, read_card
from mace_bounds.calibration import (
    CalibratedHead,
    FitConfig,
    FitResult,
    fit_head,
    load_head,
    residual_ev_per_atom,
)
from mace_bounds.decisions import joint_bytes
from mace_bounds.errors import HeadError
from mace_bounds.features import FeatureRows, FeatureStore, checked_labels, label_summary, training_keys
from mace_bounds.fitting.card import head_card
from mace_bounds.fitting.measured import Measured, coverage, labelled, metrics, overall
from mace_bounds.fitting.promise import flagged_coverage
from mace_bounds.fitting.verdict import LEVEL, SplitScores, Verdict, split_scores
from mace_bounds.head import check_head_target, is_head_folder
from mace_bounds.settings import setting
from mace_bounds.versions import versions

if TYPE_CHECKING:
    import pandas as pd

TEST = "test"
_INPUTS = "inputs_sha256"
MAX_ATOMS = 300_000  # of labelled structures, from which the grades of single atoms are learnt


@dataclass(frozen=True)
class CardNotes:
    """What only people can say of a head, for its card.

    Attributes
    ----------
    notes, licence : str
        What the data are, and under which licence they may be used.
    development : str
        Which choices were made after looking at coverage, and on which data.
    comparison : str
        How other ways to get error bars did on these data, in Markdown.
    """

    notes: str = setting("", "For the card: what the data are.")
    licence: str = setting("", "For the card: licence of the data.")
    development: str = ""
    comparison: str = ""


@dataclass(frozen=True, eq=False)
class FitReport:
    """A fitted head and how well it covers compositions that it has not seen.

    Attributes
    ----------
    head : CalibratedHead
        With its measured coverage in ``head.provenance``.
    coverage : DataFrame
        On the test split, overall and by group (:func:`mace_bounds.metrics.coverage_table`).
    repeats : DataFrame
        Per level: ``level, mean, std, minimum, maximum, n_splits, n_rows`` of the coverage over splits of
        other seeds; one split only where ``repeats`` is 1.
    splits : dict of str to int
        Rows per split of the head that is kept.
    left_out : dict of str to int
        Rows left out, by reason.
    verdict : Verdict
        Whether the head is worth having beside one constant width.
    folder : Path or None
        Where it was written.
    """

    head: CalibratedHead
    coverage: pd.DataFrame
    repeats: pd.DataFrame
    splits: dict[str, int]
    left_out: dict[str, int]
    verdict: Verdict
    folder: Path | None = None

    def save(
        self, folder: str | Path, notes: CardNotes = CardNotes(), *, overwrite: bool = False
    ) -> FitReport:
        """Write the head and its card into a folder.

        Parameters
        ----------
        folder : path
            Of this head alone.
        notes : CardNotes
            Kept in the head's provenance and printed on its card.
        overwrite : bool
            Replace a head that is already there.

        Returns
        -------
        FitReport
            With the head as it was written.

        Raises
        ------
        HeadError
            If the folder may not be written.
        """
        head = replace(self.head, provenance={**self.head.provenance, **asdict(notes)})
        written = head.save(folder, head_card(Path(folder).name, head, self.coverage), overwrite=overwrite)
        head = replace(head, name=written.resolve().name, digest=read_card(written).digest)
        return replace(self, head=head, folder=written)

    def __repr__(self) -> str:
        return (
            f"FitReport({self.head!r}, {self.splits}, folder={str(self.folder) if self.folder else None!r})"
        )


def fit(
    store: str | Path | FeatureStore,
    folder: str | Path | None = None,
    config: FitConfig = FitConfig(),
    *,
    model: str | Path | Backbone | None = None,
    include_training: bool = False,
    repeats: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FitReport:
    """Fit and calibrate a head on the labelled rows of a feature store.

    Parameters
    ----------
    store : path or FeatureStore
        A finished feature store.
    folder : path, optional
        Where the head goes; None only returns it, and :meth:`FitReport.save` writes it with notes for its card, or
        in place of another.
    config : FitConfig
        Splits and settings.
    model : str, path or Backbone, optional
        Where the compositions of the model's own training are looked up (``mini`` and folders like it); the
        store's model by default. Rows of these are left out.
    include_training : bool
        Use rows of compositions from the model's own training as well. If it was trained on labels like these, the
        errors there are too small for new crystals, and so are the bounds.
    repeats : int
        Fit with this many seeds, ``config.seed`` onwards, and report the mean coverage over the splits. The
        head that is kept is the first.
    progress : callable, optional
        Called with (fits done, fits in all).

    Returns
    -------
    FitReport

    Raises
    ------
    LabelError
        If the labels are the model's own energies, or another quantity than total energies.
    HeadError
        If there are too few usable rows, or ``folder`` may not be written.
    StoreError
        If the store is missing or unfinished.
    """
    if repeats < 1:
        raise HeadError(f"repeats = {repeats} leaves nothing to fit; give 1 or more.")
    if folder is not None:
        check_head_target(folder)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    inputs = inputs_sha256(store, config, model, include_training=include_training, repeats=repeats)
    manifest, rows = store.manifest, checked_labels(store.read(max_atoms=MAX_ATOMS))
    seen = training_keys(manifest, model, config.trained_on)
    left_out = None if include_training else seen
    about = {**about_data(rows), **asdict(CardNotes()), _INPUTS: inputs}
    runs: list[list[dict[str, float]]] = []
    scores: list[SplitScores] = []
    tests: list[Measured] = []
    first: tuple[FitResult, pd.DataFrame, Measured] | None = None
    for k in range(repeats):
        seeded = replace(config, seed=config.seed + k)
        result = fit_head(
            rows, manifest, seeded, training_keys=left_out, provenance=about, measure_sources=k == 0
        )
        result = replace(result, head=replace(result.head, training_compositions=seen))
        test = _test_rows(result, seen)
        tests.append(test)
        measured = coverage(test)
        runs.append(overall(measured, TEST))
        others = result.rows.take(result.splits != TEST)
        scores.append(
            split_scores(test, residual_ev_per_atom(others), int(others.table["formula"].nunique()))
        )
        first = first or (result, measured, test)
        if progress is not None:
            progress(k + 1, repeats)
    assert first is not None
    result, measured, test = first
    result = replace(result, head=replace(result.head, beside=joint_bytes(result, config, rows)))
    repeated, verdict = _repeats(runs), Verdict.of(scores, config)
    provenance = {
        **result.head.provenance,
        "levels": list(result.head.levels),
        "coverage": runs[0],
        "coverage_over_splits": repeated.to_dict("records"),
        "metrics": metrics(test),
        "verdict": verdict.to_dict(),
        "flagged": flagged_coverage(tests, LEVEL if LEVEL in result.head.levels else result.head.levels[-1]),
        "includes_training": include_training and seen is not None,
        "test_rows_in_training": test.n_in_training,
        "training_compositions_known": seen is not None,
        "n_training_compositions": 0 if seen is None else len(seen),
    }
    splits = {name: int(n) for name, n in provenance["rows"].items()}
    report = FitReport(
        replace(result.head, provenance=provenance), measured, repeated, splits, result.left_out, verdict
    )
    return report if folder is None else report.save(folder)


def inputs_sha256(
    store: FeatureStore,
    config: FitConfig,
    model: str | Path | Backbone | None,
    *,
    include_training: bool,
    repeats: int,
) -> str:
    """SHA-256 of all that :func:`fit` makes a head of, and of the version that makes it."""
    manifest = store.manifest
    seen = training_keys(manifest, model, config.trained_on)
    about = [store.digest(), asdict(config), include_training, repeats, versions()["mace-bounds"]]
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    sha.update(b"unknown" if seen is None else np.ascontiguousarray(seen).tobytes())
    return sha.hexdigest()


def fitted_before(folder: Path, inputs: str, notes: CardNotes) -> CalibratedHead | None:
    """Return the head in a folder if it is what :func:`fit` would make of inputs and notes; None where it is not."""
    if not is_head_folder(folder):
        return None
    with suppress(HeadError):
        head = load_head(folder)
        if {**head.provenance, **asdict(notes), _INPUTS: inputs} == head.provenance:
            return head
    return None


def about_data(rows: FeatureRows) -> dict[str, Any]:
    """What a head's provenance says of its data, as plain values."""
    used = rows.labelled().table
    return {
        "versions": versions(),
        "sources": {str(k): int(v) for k, v in used["source"].value_counts().head(20).items()},
        "labels": label_summary(rows.scored().table),
        "label_kinds": {str(k): int(v) for k, v in used["label_kind"].value_counts().head(20).items()},
    }


def _test_rows(result: FitResult, training_keys: NDArray[np.uint64] | None) -> Measured:
    """The test split with what the head says of it; HeadError without one."""
    levels = result.head.levels
    rows = result.rows.take(result.splits == TEST)
    if len(rows.table) == 0:
        raise HeadError(
            "the shares for fit and calibration leave none of the rows to measure coverage on; give them a smaller sum."
        )
    return replace(labelled(detailed_table(rows, result.head, levels[-1], training_keys), levels), name=TEST)


def _repeats(runs: list[list[dict[str, float]]]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for level in sorted({row["level"] for run in runs for row in run}):
        picked = [row for run in runs for row in run if row["level"] == level]
        values = np.array([row["coverage"] for row in picked])
        rows.append(
            {
                "level": level,
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                "minimum": float(values.min()),
                "maximum": float(values.max()),
                "n_splits": len(values),
                "n_rows": int(sum(row["n"] for row in picked)),
            }
        )
    return pd.DataFrame(rows)
