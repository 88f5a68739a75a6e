"""The manifest of a feature store: what it was made with, and whether it is complete."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mace_bounds._io import parsed_json, visible, write_json
from mace_bounds.backbones import Golden
from mace_bounds.errors import StoreError
from mace_bounds.structures import one_line

FORMAT = "mace-bounds feature store 2"
MANIFEST = "manifest.json"
OF_THE_FILE = ("model_file_sha256", "theta0_ev", "golden")
"""What may differ a little between copies of one model: a float32 one has rounded the weights."""


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
    model_file_sha256 : str
        SHA-256 of the checkpoint that the model was loaded from; empty where it was none.
    energies_of : str
        Name of another model, whose energies are in ``energy_model_ev``; empty where they are the model's own.
    golden : Golden or None
        What the model gives for a few small cells; None in older stores, or where it fails on them.
    """

    model: str
    model_digest: str
    model_head: str
    kind: Literal["readout", "descriptors"]
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
    model_file_sha256: str = ""
    energies_of: str = ""
    golden: Golden | None = None

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
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("another format")
        if values.pop("digest", None) != _digest(values):
            raise ValueError("it was changed after it was written")
        manifest = parsed_json(Manifest, text)
        if manifest.dtype not in ("float32", "float64"):
            raise ValueError("dtype is neither float32 nor float64")
        if not all(map(math.isfinite, manifest.theta0_ev)):
            raise ValueError("theta0_ev is not finite")
        if manifest.theta0_ev and len(manifest.theta0_ev) != len(manifest.columns) + 1:
            raise ValueError("theta0_ev does not fit the columns")
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{folder} is no feature store, or its {MANIFEST} cannot be used ({one_line(error)}); make one with "
            "mace-bounds features SOURCE OUT."
        ) from error
    return manifest


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest whole."""
    values = {"format": FORMAT, "complete": manifest.complete, **manifest.settings()}
    values |= {
        "n_records": manifest.n_records,
        "n_failed": manifest.n_failed,
        "ids_sha256": manifest.ids_sha256,
    }
    write_json(folder / MANIFEST, {**dict(sorted(values.items())), "digest": _digest(values)})


def open_folder(folder: Path, manifest: Manifest) -> None:
    """Make the folder of a store, or see that the one that is there was begun with the same settings."""
    if not is_store(folder):
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, manifest)
    check_settings(folder, read_manifest(folder), manifest)


def check_free(folder: Path) -> None:
    """Raise :class:`StoreError` if ``folder`` is something else than a store, or than an empty folder."""
    if folder.exists() and not is_store(folder) and (not folder.is_dir() or visible(folder)):
        raise StoreError(f"{folder} holds something else than a feature store; choose a new or empty folder.")


def check_settings(folder: Path, before: Manifest, now: Manifest) -> None:
    """Raise :class:`StoreError` if the settings of the store in ``folder`` are not those of ``now``."""
    there, here = before.settings(), now.settings()
    different = sorted(key for key in here if there.get(key) != here[key] and key not in OF_THE_FILE)
    if different:
        raise StoreError(
            f"from the settings that {folder} was begun with, {', '.join(different)} differ; use the same settings, "
            "or choose a new folder."
        )
    check_golden(folder, before, now)


def check_golden(folder: Path, before: Manifest, now: Manifest) -> None:
    """Raise :class:`StoreError` if two models of one digest, one of them that of ``folder``, give other numbers."""
    if before.golden and now.golden and (difference := before.golden.difference(now.golden)):
        raise StoreError(
            f"the model has the tensors of the one that {folder} was made with, but is another: {difference}; use that "
            "model, or choose a new folder."
        )


def complete(folder: Path, manifest: Manifest, n_records: int, n_failed: int, ids_sha256: str) -> None:
    """Write the manifest of a store whose shards are all there."""
    write_manifest(folder, replace(manifest, n_records=n_records, n_failed=n_failed, ids_sha256=ids_sha256))
