"""The exceptions of mace-bounds.

    MaceBoundsError            everything this package raises on purpose
    ├── SourceError            a file, folder, glob, stream or database cannot be used at all
    │   ├── NothingFound       a database holds nothing that fits a query
    │   └── DatabaseChanged    a database changed while it was read
    ├── StructureError         one record cannot be scored
    ├── LabelError             a label is not comparable with the model's energy
    ├── ModelError             a model cannot be loaded, or its readout cannot be split
    ├── StoreError             a feature store is missing, foreign or inconsistent
    ├── EngineError            worker processes or a Dask cluster cannot do the work
    ├── HeadError              a head cannot be fitted, read, or used with this model
    └── ServiceError           a service cannot be started, or cannot answer a request

Every message is one sentence: what came, what is wanted, what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(given: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the known name that is most like a given one; empty where none is.

    Examples
    --------
    >>> nearest("scroe", ["score", "fit"])
    "; did you mean 'score'?"
    """
    names = {name.lower(): name for name in known}
    found = get_close_matches(given.lower(), names, n=1)
    return f"; did you mean {names[found[0]]!r}?" if found else ""


class MaceBoundsError(Exception):
    """Base class of every error that mace-bounds raises on purpose."""


class SourceError(MaceBoundsError):
    """A file, folder, glob or stream cannot be used at all."""


class NothingFound(SourceError):
    """A database holds nothing that fits a query."""


class DatabaseChanged(SourceError):
    """A database changed while its pages were fetched, so that they do not belong together."""

    def __init__(self) -> None:
        super().__init__(
            "the database changed while its pages were fetched, so they do not belong together; run the same command "
            "again to fetch them anew."
        )


class StructureError(MaceBoundsError):
    """One record cannot be scored; its message becomes the record's reason in bulk runs."""


class LabelError(MaceBoundsError):
    """A label is not comparable with the model's energy."""


class ModelError(MaceBoundsError):
    """A model cannot be loaded, or its readout cannot be split exactly."""


class StoreError(MaceBoundsError):
    """A feature store is missing, foreign or inconsistent."""


class EngineError(MaceBoundsError):
    """Worker processes or a Dask cluster cannot do the work."""


class HeadError(MaceBoundsError):
    """A head cannot be fitted, read, or used with this model."""


class ServiceError(MaceBoundsError):
    """A service cannot be started, or cannot answer a request."""
