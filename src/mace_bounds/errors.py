"""The exceptions of mace-bounds.

    MaceBoundsError            everything this package raises on purpose
    ├── SourceError            a file, folder, glob or stream cannot be used at all
    ├── StructureError         one record cannot be scored
    ├── LabelError             a label is not comparable with the model's energy
    ├── ModelError             a model cannot be loaded, or its readout cannot be split
    ├── StoreError             a feature store is missing, foreign or inconsistent
    ├── EngineError            worker processes or a Dask cluster cannot do the work
    └── HeadError              a head cannot be fitted, read, or used with this model

Every message is one sentence: what was expected, what came, what to do.
"""


class MaceBoundsError(Exception):
    """Base class of every error that mace-bounds raises on purpose."""


class SourceError(MaceBoundsError):
    """A file, folder, glob or stream cannot be used at all."""


class StructureError(MaceBoundsError):
    """One record cannot be scored; its message becomes the record's reason in bulk runs."""


class LabelError(MaceBoundsError):
    """A label is not comparable with the model's energy (DESIGN 3)."""


class ModelError(MaceBoundsError):
    """A model cannot be loaded, or its readout cannot be split exactly."""


class StoreError(MaceBoundsError):
    """A feature store is missing, foreign or inconsistent."""


class EngineError(MaceBoundsError):
    """Worker processes or a Dask cluster cannot do the work."""


class HeadError(MaceBoundsError):
    """A head cannot be fitted, read, or used with this model."""
