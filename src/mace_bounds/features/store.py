"""The feature store: a folder of immutable Parquet shards and a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mace_bounds.errors import StoreError
from mace_bounds.features.label_guard import LABEL_COLUMNS
from mace_bounds.features.manifest import MANIFEST, read_manifest
from mace_bounds.features.rows import AtomRows, FeatureRows
from mace_bounds.features.shard import read_columns, read_shard, shard_info

if TYPE_CHECKING:
    import pandas as pd


class FeatureStore:
    """A feature store on disk.

    Parameters
    ----------
    folder : path
        The store's folder.

    Raises
    ------
    StoreError
        If the folder holds no store of this format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    def shards(self) -> list[Path]:
        """Finished shards in order."""
        return sorted(self.folder.glob("shard-*.parquet"))

    def digest(self) -> str:
        """SHA-256 over the manifest and what each shard was made from; equal for equal stores."""
        parts = [(self.folder / MANIFEST).read_text(), *(shard_info(shard).keys for shard in self.shards())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def rows(self, *, atoms: bool = False) -> Iterator[FeatureRows]:
        """Iterate over the shards, one :class:`FeatureRows` each.

        Parameters
        ----------
        atoms : bool
            Read the features of single atoms too, where the store keeps them.

        Raises
        ------
        StoreError
            If a shard is damaged, or one of a finished store is missing.
        """
        n = 0
        for shard in self.shards():
            rows = read_shard(shard, len(self.manifest.columns), atoms=atoms and self.manifest.atoms)
            n += len(rows.table)
            yield rows
        if self.manifest.complete and n != self.manifest.n_records:
            raise StoreError(
                f"the shards in {self.folder} hold {n:,} records, and its manifest says {self.manifest.n_records:,}; "
                "copy the whole folder again, or extract the features again."
            )

    def read(self, *, max_atoms: int = 0) -> FeatureRows:
        """Read everything at once, but features of single atoms only of a sample.

        Parameters
        ----------
        max_atoms : int
            Atoms in the sample of labelled structures whose single atoms are read, where the store keeps them.
            The sample is made by the structures' hashes: neither random nor dependent on the order.

        Raises
        ------
        StoreError
            If the run that fills the store has not finished.
        """
        import pandas as pd

        if not self.manifest.complete:
            raise StoreError(
                f"the feature store {self.folder} is unfinished: its run was interrupted, or it is a part; run the "
                "same mace-bounds features command again to finish it, or mace-bounds merge for parts."
            )
        parts = list(self.rows())
        if not parts:
            raise StoreError(f"the feature store {self.folder} holds no records; give it another source.")
        table = pd.concat([p.table for p in parts], ignore_index=True)
        features = np.concatenate([p.features for p in parts])
        atoms = self._sample(table, max_atoms) if max_atoms and self.manifest.atoms else None
        return FeatureRows(table, features, atoms)

    def labels(self) -> pd.DataFrame:
        """What labels are judged by: the columns :data:`~mace_bounds.features.LABEL_COLUMNS` of all rows."""
        import pandas as pd

        parts = [read_columns(shard, list(LABEL_COLUMNS)) for shard in self.shards()]
        if not parts:
            raise StoreError(f"the feature store {self.folder} holds no records; give it another source.")
        return pd.concat(parts, ignore_index=True)

    def _sample(self, table: pd.DataFrame, max_atoms: int) -> AtomRows:
        candidates = table[table["reason"].isna() & table["energy_ev"].notna()]
        candidates = candidates.sort_values(["structure_hash", "id"], kind="stable")
        chosen = candidates.index[candidates["n_atoms"].cumsum() <= max_atoms]
        wanted = table.index.isin(chosen)
        kept, start = [], 0
        for rows in self.rows(atoms=True):
            assert rows.atoms is not None
            mask = wanted[start : start + len(rows.table)]
            counts = np.where(mask, rows.atoms.counts, 0)
            kept.append(AtomRows(rows.atoms.take(mask).values, counts))
            start += len(mask)
        return AtomRows.join(kept)
