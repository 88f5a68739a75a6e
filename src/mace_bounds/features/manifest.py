"""The manifest of a feature store, and files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from mace_bounds.errors import StoreError

FORMAT = "mace-bounds feature store 1"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a store was made with; frozen when the first shard is written.

    Attributes
    ----------
    model, model_digest, model_head : str
        The frozen model: its name, the SHA-256 of its tensors, and which of its heads.
    kind : {"readout", "descriptors"}
        What the feature columns are.
    columns : tuple of str
        Their names.
    theta0_ev : tuple of float
        The frozen readout on [readout features, n_atoms], eV; empty for descriptors.
    dtype : {"float32", "float64"}
        Precision of the forward and of the stored features.
    shard_rows : int
        Records per shard.
    versions : dict
        Versions of mace-bounds, mace and torch.
    atoms : bool
        Whether the features of single atoms are kept as well, in float32.
    symmetry : bool
        Whether the space groups of labelled structures are kept.
    n_records, n_failed : int
        Rows of all shards, and those with a reason instead of features; 0 until complete.
    ids_sha256 : str
        Hash of all ids in order; empty until complete.
    """

    model: str
    model_digest: str
    model_head: str
    kind: str
    columns: tuple[str, ...]
    theta0_ev: tuple[float, ...]
    dtype: str
    shard_rows: int
    versions: dict[str, str]
    atoms: bool = False
    symmetry: bool = False
    n_records: int = 0
    n_failed: int = 0
    ids_sha256: str = ""

    @property
    def complete(self) -> bool:
        """Whether the run that fills the store has finished."""
        return bool(self.ids_sha256)

    def settings(self) -> dict[str, Any]:
        """Everything that must agree before a run may be resumed."""
        values = asdict(replace(self, n_records=0, n_failed=0, ids_sha256=""))
        return {**values, "columns": list(self.columns), "theta0_ev": list(self.theta0_ev)}


def is_store(folder: str | Path) -> bool:
    """Whether a path is the folder of a feature store."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest; raises :class:`StoreError` if there is none."""
    try:
        values = json.loads((folder / MANIFEST).read_text())
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        values.pop("complete")
        return Manifest(
            **{**values, "columns": tuple(values["columns"]), "theta0_ev": tuple(values["theta0_ev"])}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"expected a feature store in {folder}, but its {MANIFEST} cannot be used ({type(error).__name__}); "
            "make one with mace-bounds features SOURCE OUT."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest under a temporary name, then rename."""
    values = {"format": FORMAT, "complete": manifest.complete, **manifest.settings()}
    values |= {
        "n_records": manifest.n_records,
        "n_failed": manifest.n_failed,
        "ids_sha256": manifest.ids_sha256,
    }
    replace_file(folder / MANIFEST, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that it is there whole or not at all."""
    temporary = temporary_path(path)
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def temporary_path(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process takes, whatever else fills the same folder."""
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Delete what killed processes have left behind; for a store that nobody fills any more."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
