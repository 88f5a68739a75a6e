"""The first stage: what the sources stand for, on this disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import digest_of
from mace_bounds.errors import SourceError, StoreError
from mace_bounds.features import FeatureStore, is_store
from mace_bounds.materials_project import download, is_query
from mace_bounds.pipeline.folder import entries_path, features_path
from mace_bounds.structures import source_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mace_bounds.pipeline.config import Question

QUERY, FILES, STORE = "query", "files", "store"


@dataclass(frozen=True)
class Source:
    """A source that is here.

    Attributes
    ----------
    name : str
        As it was asked for.
    kind : {"query", "files", "store"}
    path : Path
        What is read: the downloaded file, a path or pattern, or a feature store.
    digest : str
        SHA-256 of it.
    store : Path
        Where its features are, or will be.
    about : dict
        Plain values for ``build.json``: counts, version of the database, licence.
    """

    name: str
    kind: str
    path: Path
    digest: str
    store: Path
    about: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """Plain values, as ``build.json`` keeps them."""
        values = {"source": self.name, "kind": self.kind, "digest": self.digest}
        return {**values, "path": str(self.path), "features": str(self.store), **self.about}


def kind_of(name: str) -> str:
    """Tell a query, a feature store and anything else apart."""
    if is_query(name):
        return QUERY
    return STORE if is_store(name) else FILES


def obtain(
    question: Question,
    out: Path,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Source]:
    """Download what is not here; what is here already is not asked for again.

    Raises
    ------
    SourceError
        As :func:`mace_bounds.materials_project.download`, or if a path has gone.
    StoreError
        If a feature store is unfinished or of another model.
    """
    found = []
    for place, name in enumerate(question.sources):
        kind = kind_of(name)
        if kind == QUERY:
            result = download(name, entries_path(out, place), progress=progress, note=note)
            keys = ("database_version", "licence", "counts")
            about = {key: result.summary[key] for key in keys}
            digest = str(result.summary["sha256"])
            found.append(Source(name, kind, result.path, digest, features_path(out, place), about))
        elif kind == STORE:
            found.append(_finished_store(Path(name), question.model))
        else:
            found.append(Source(name, kind, Path(name), source_digest(name), features_path(out, place), {}))
    return found


def _finished_store(folder: Path, model: str) -> Source:
    store = FeatureStore(folder)
    manifest = store.manifest
    if not manifest.complete:
        raise StoreError(
            f"expected a finished feature store in {folder}, but its run was interrupted or it is a part; run the same "
            "mace-bounds features command again to finish it, or mace-bounds merge for parts."
        )
    wanted = digest_of(model)  # None for a checkpoint: then the names decide
    same = manifest.model == Path(model).name if wanted is None else manifest.model_digest == wanted
    if not same:
        raise StoreError(
            f"expected features of {model} in {folder}, but they are of {manifest.model}; name that model or make them "
            "anew."
        )
    return Source(str(folder), STORE, folder, store.digest(), folder, {"rows": manifest.n_records})


def describe(sources: list[Source]) -> str:
    """Say in a line what the labels are from, for the head's card."""
    told = []
    for source in sources:
        version = source.about.get("database_version")
        told.append(
            f"Materials Project {source.name.removeprefix('mp:')}, version {version} ({source.path.name})"
            if version
            else source.path.name
        )
    return "; ".join(told)


def licences(sources: list[Source]) -> str:
    """Licences of the data that are known; empty if none is."""
    known = [f"{s.path.name}: {s.about['licence']}" for s in sources if "licence" in s.about]
    others = [s.path.name for s in sources if "licence" not in s.about]
    return "; ".join([*known, *([f"{', '.join(others)}: not stated"] if known and others else [])])


def check_labels(sources: list[Source]) -> None:
    """Raise :class:`SourceError` if the downloads hold no label at all and there is nothing else."""
    if all(s.about.get("counts", {}).get("labelled", 1) == 0 for s in sources):
        raise SourceError(
            f"expected labels in {', '.join(s.name for s in sources)}, but the label guard refused all of them; "
            "widen the query or join labelled structures (--with SOURCE)"
        )
