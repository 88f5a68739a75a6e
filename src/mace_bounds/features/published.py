"""Energies of another model in a feature store, in place of those of the model that gives the features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mace_bounds._io import atomic
from mace_bounds.backbones import training_compositions
from mace_bounds.errors import StoreError
from mace_bounds.features.manifest import complete, open_folder
from mace_bounds.features.shard import shard_path, with_model_energies
from mace_bounds.features.store import FeatureStore
from mace_bounds.structures import read_compositions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mace_bounds.backbones import Backbone
    from mace_bounds.features.manifest import Manifest

NO_ENERGY = "no energy was given under this id"


def training_keys(
    manifest: Manifest, model: str | Path | Backbone | None, trained_on: str | None
) -> NDArray[np.uint64] | None:
    """Compositions in the training of the model whose energies a store holds; None where they are not known.

    Parameters
    ----------
    manifest : Manifest
        Of the store.
    model : str, Path or Backbone, optional
        Where those of the model of the features are looked up; they say nothing of another model's errors.
    trained_on : str, optional
        What the user says of the training; see :func:`mace_bounds.backbones.training_compositions`.
    """
    if manifest.energies_of:
        return None if trained_on is None else read_compositions(trained_on)
    return training_compositions(model or manifest.model, manifest.model_digest, trained_on)


def store_with_energies(
    store: FeatureStore, folder: str | Path, energies_ev: Mapping[str, float], energies_of: str
) -> FeatureStore:
    """Copy a finished store with energies of another model: heads fitted to the copy bound that model's energies.

    Parameters
    ----------
    store : FeatureStore
        Features of a model that runs here.
    folder : path
        Of the copy; features of single atoms are not copied.
    energies_ev : mapping of str to float
        Total energies of the cells by id, eV; a row without one gets a reason.
    energies_of : str
        Name of the model that gave them.

    Returns
    -------
    FeatureStore

    Raises
    ------
    StoreError
        If the store is unfinished, ``folder`` holds something else, or none of the ids has an energy.
    """
    folder, manifest = Path(folder), store.manifest
    if not manifest.complete:
        raise StoreError(
            f"the feature store {store.folder} is unfinished; run its mace-bounds features again."
        )
    made = replace(manifest, energies_of=energies_of, atoms=False)
    open_folder(folder, replace(made, n_records=0, n_failed=0, ids_sha256=""))
    n_failed = 0
    for index, shard in enumerate(store.shards()):
        with atomic(shard_path(folder, index)) as temporary:
            n_failed += with_model_energies(shard, temporary, energies_ev, NO_ENERGY)
    if n_failed == manifest.n_records:
        raise StoreError(f"none of the ids of {store.folder} has an energy; check the ids of both.")
    complete(folder, made, manifest.n_records, n_failed, manifest.ids_sha256)
    return FeatureStore(folder)
