"""Add golden energies to heads and stores that were made before these were kept; all their numbers stay.

    python scripts/add_golden_energies.py FOLDER...

The model of each is loaded by the name that it keeps, and must have the digest that it keeps. A head's own digest changes.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from mace_bounds.backbones import FeatureKind, Golden, golden_of, load_model
from mace_bounds.calibration import read_config
from mace_bounds.features import is_store
from mace_bounds.features.manifest import read_manifest, write_manifest
from mace_bounds.head import read_beside, read_head_folder, write_head
from mace_bounds.head.folder import CARD, RESERVED


def golden(name: str, digest: str, head: str, kind: FeatureKind, dtype: str) -> Golden:
    """Golden values of a model that is known by its name."""
    model = load_model(name, head=head, dtype=dtype, device="cpu")
    made = golden_of(model, kind)
    if model.digest != digest or made is None:
        raise SystemExit(f"{name} is not the model of digest {digest[:12]}, or fails on the cells.")
    return made


def add_to_store(folder: Path) -> None:
    of = read_manifest(folder)
    made = golden(of.model, of.model_digest, of.model_head, of.kind, of.dtype)
    write_manifest(folder, replace(of, golden=made))


def add_to_head(folder: Path) -> None:
    tensors, config = read_head_folder(folder)
    of = read_config(config).identity
    kind: FeatureKind = "descriptors" if of.kind == "descriptors" else "readout"
    made = golden(of.backbone, of.model_digest, of.model_head, kind, "float32")
    config["identity"] = {**config["identity"], "golden": asdict(made)}
    narrow = any(name in config for name in RESERVED if name not in ("format", "digest"))
    kept = {name: value for name, value in config.items() if name not in RESERVED}
    card, beside = (folder / CARD).read_text(encoding="utf-8"), read_beside(folder)
    write_head(folder, tensors, kept, card, overwrite=True, beside=beside, narrow=narrow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        (add_to_store if is_store(folder) else add_to_head)(folder)
        print(f"{folder}: golden energies added")


if __name__ == "__main__":
    main()
