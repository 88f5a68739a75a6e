"""A source that is its own data: heads fitted to its labels, or to what a published model gets wrong of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mace_bounds.errors import LabelError
from mace_bounds.fitting.cross_fitting import N_FOLDS, CrossFit, cross_fitted
from mace_bounds.fitting.predictions import check_predictions, read_predictions, with_predictions
from mace_bounds.fitting.run import CardNotes, about_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mace_bounds.calibration import FitConfig
    from mace_bounds.features import FeatureRows, FeatureStore


@dataclass(frozen=True)
class Published:
    """Energies that some model published, to be bounded in place of the backbone's.

    Attributes
    ----------
    path : path
        The table.
    column : str
        Column of total energies, eV.
    id_column : str or None
        Column of ids; None finds it.
    """

    path: str | Path
    column: str
    id_column: str | None = None


def published_energies(
    path: str | Path | None, column: str | None, id_column: str | None
) -> Published | None:
    """Put what a user says of published energies together; LabelError if a part is missing."""
    if path is None and column is None and id_column is None:
        return None
    if path is None or column is None:
        raise LabelError(
            "expected a table of predictions and the name of its energy column, got one of them; "
            "give both (--predictions TABLE --energy-column NAME)."
        )
    return Published(path, column, id_column)


@dataclass(frozen=True, eq=False)
class OwnHead:
    """Heads of a source's own labels, and the rows that they bound.

    Attributes
    ----------
    heads : CrossFit
    store : FeatureStore
    energies : Series or None
        Published energies by id.
    training_keys : ndarray of uint64 or None
        Compositions from the training of the model whose energies are bounded, where known.
    about : dict
        Plain values for the summary.
    """

    heads: CrossFit
    store: FeatureStore
    energies: pd.Series[float] | None
    training_keys: NDArray[np.uint64] | None
    about: dict[str, Any]

    def rows(self) -> Iterator[FeatureRows]:
        """Shard by shard, with the energies that are bounded."""
        for rows in self.store.rows():
            yield rows if self.energies is None else with_predictions(rows, self.energies)

    def tables(self, level: float) -> Iterator[pd.DataFrame]:
        """Detailed bounds, shard by shard."""
        for rows in self.rows():
            yield self.heads.detailed_table(rows, level, self.training_keys)


def fit_own_head(
    store: FeatureStore,
    config: FitConfig,
    *,
    published: Published | None,
    training_keys: NDArray[np.uint64] | None,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OwnHead:
    """Cross-fit heads to a finished store.

    Parameters
    ----------
    store : FeatureStore
    config : FitConfig
    published : Published, optional
        Bound these energies instead of the backbone's.
    training_keys : ndarray of uint64, optional
        Compositions of the backbone's training; they say nothing about another model's energies.
    folder : Path, optional
        Where the heads are kept; see :func:`mace_bounds.fitting.cross_fitting.cross_fitted`.
    progress : callable, optional
        Called with (heads fitted, heads in all).

    Raises
    ------
    LabelError
        If the source has no labels, or the table of predictions does not fit.
    HeadError
        If there are too few labelled rows.
    """
    rows, manifest = store.read(), store.manifest
    energies, about = None, dict[str, Any]()
    if published is not None:
        energies = read_predictions(published.path, published.column, published.id_column)
        rows = with_predictions(rows, energies)
        about = {
            "file": str(published.path),
            "column": published.column,
            "features": manifest.model,
            **check_predictions(rows, published.column),
        }
        manifest = replace(manifest, model=published.column)
        training_keys = None
    if not len(rows.labelled().table):
        raise LabelError(
            "expected labels to fit a head to, got none; name the key of the energies (--energy-key) or use a head."
        )
    provenance = {
        **about_data(rows),
        **asdict(CardNotes()),
        "training_compositions_known": training_keys is not None,
        "includes_training": published is not None or training_keys is not None,
        "published": published is not None,
        "outer_folds": N_FOLDS,
    }
    heads = cross_fitted(rows, manifest, config, folder=folder, provenance=provenance, progress=progress)
    return OwnHead(heads, store, energies, training_keys, about)
