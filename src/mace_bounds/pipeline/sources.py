"""The first stage: every source as a file or a feature store on this disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones import digest_of, training_compositions
from mace_bounds.errors import SourceError, StoreError
from mace_bounds.features import FeatureStore, is_store
from mace_bounds.fitting import TrainingExposure
from mace_bounds.materials_project import download, is_query
from mace_bounds.pipeline.folder import entries_path, features_path
from mace_bounds.structures import require_usable, source_digest

if TYPE_CHECKING:
    from mace_bounds.pipeline.config import BuildConfig

QUERY, FILES, STORE = "query", "files", "store"
TRAINED_ON = {
    "medium-mpa-0": "MPtrj, which is the Materials Project itself, and sAlex, a part of Alexandria",
}
"""Published training sets of named models; their compositions are not known here one by one."""
ADD_MORE = "Join labels that it has not seen (--with SOURCE): WBM, Alexandria outside sAlex, newer materials."


@dataclass(frozen=True)
class Source:
    """A source that is here."""

    name: str  # A canonical query or an absolute path
    kind: str  # {"query", "files", "store"}
    path: Path  # what is read: the downloaded file, a path or pattern, or a feature store
    digest: str  # SHA-256 of it
    store: Path  # where its features are, or will be
    about: dict[str, Any]  # plain values for ``build.json``: counts, version of the database, licence

    def summary(self) -> dict[str, Any]:
        """Plain values, as ``build.json`` keeps them."""
        values = {"source": self.name, "kind": self.kind, "digest": self.digest}
        return {**values, "path": str(self.path), "features": str(self.store), **self.about}


def kind_of(name: str) -> str:
    """Tell a query, a feature store and anything else apart."""
    if is_query(name):
        return QUERY
    return STORE if is_store(name) else FILES


def resolve_sources(
    config: BuildConfig,
    out: Path,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Source]:
    """Download the queries that are not here yet, and describe every source."""
    sources = []
    for place, name in enumerate(config.sources):
        kind, store = kind_of(name), features_path(out, place)
        if kind == QUERY:
            result = download(name, entries_path(out, place), progress=progress, note=note)
            about = {key: result.summary[key] for key in ("database_version", "licence", "counts")}
            sources.append(Source(name, kind, result.path, str(result.summary["sha256"]), store, about))
        elif kind == STORE:
            sources.append(_finished_store(Path(name), config.model))
        else:
            require_usable(config.extract.read(name))  # before the model is loaded
            sources.append(Source(name, kind, Path(name), source_digest(name), store, {}))
    if all(source.about.get("counts", {}).get("labelled", 1) == 0 for source in sources):
        raise SourceError(
            f"the label guard refused every label in {', '.join(config.sources)}; widen the query or add labelled "
            "structures (--with SOURCE)."
        )
    return sources


def _finished_store(folder: Path, model: str) -> Source:
    store = FeatureStore(folder)
    manifest = store.manifest
    if not manifest.complete:
        raise StoreError(
            f"the feature store {folder} is unfinished or a part; run the same mace-bounds features command again to "
            "finish it, or mace-bounds merge for parts."
        )
    wanted = digest_of(model)  # None for a checkpoint: then the names decide
    same = manifest.model == Path(model).name if wanted is None else manifest.model_digest == wanted
    if not same:
        raise StoreError(
            f"the features in {folder} are of {manifest.model}, not of {model}; name that model or extract them again."
        )
    return Source(str(folder), STORE, folder, store.digest(), folder, {"rows": manifest.n_records})


def describe(sources: list[Source]) -> str:
    """Return one line on where the labels are from, for the head's card."""
    texts = []
    for source in sources:
        version = source.about.get("database_version")
        texts.append(
            f"Materials Project {source.name.removeprefix('mp:')}, version {version} ({source.path.name})"
            if version
            else source.path.name
        )
    return "; ".join(texts)


def licences(sources: list[Source]) -> str:
    """Return the licences of the data that are known; empty if none is."""
    known = [f"{s.path.name}: {s.about['licence']}" for s in sources if "licence" in s.about]
    others = [s.path.name for s in sources if "licence" not in s.about]
    return "; ".join([*known, *([f"{', '.join(others)}: not stated"] if known and others else [])])


def training_is_known(config: BuildConfig) -> bool:
    """Whether it is known here which compositions the model was trained on."""
    if config.fit.trained_on is not None:
        return True
    return training_compositions(config.model, digest_of(config.model) or "") is not None


def training_text(model: str, exposure: TrainingExposure) -> str:
    """Say what the labels of a head have to do with the model's own training, and what to do about it."""
    text = exposure.sentence(Path(model).name, TRAINED_ON.get(model, ""))
    return text if exposure.known else f"{text} {ADD_MORE}"
