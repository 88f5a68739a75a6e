"""A model and its head, loaded once: structures in, bounds out. Everything that bounds an energy goes through here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mace_bounds._io import file_sha256
from mace_bounds.backbones import Backbone, fetch_weights, find_weights, list_models
from mace_bounds.bounds.explanation import N_NEIGHBOURS, Explanation, explain_row
from mace_bounds.bounds.library import find_head, load_head
from mace_bounds.bounds.table import bounds_table, detailed_table, refuse_labels
from mace_bounds.calibration import CalibratedHead
from mace_bounds.columns import records
from mace_bounds.errors import HeadError, StructureError
from mace_bounds.features import (
    LABEL_COLUMNS,
    ExtractSettings,
    extract_rows,
    refused_labels,
    without_refused,
)
from mace_bounds.flags import FLAGS, flag_names
from mace_bounds.structures import TOTAL_ENERGY, joined_keys, read_compositions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import torch

    from mace_bounds.backbones import FeatureKind
    from mace_bounds.features import FeatureRows, Refused
    from mace_bounds.structures import Source, StructureLike

ModelLike: TypeAlias = "str | Path | torch.nn.Module | Backbone"
"""A model by its name or path, or loaded."""

_BATCH = 64
"""Structures that are read, extracted and bounded together: memory stays bounded however many come."""


@dataclass(frozen=True)
class Bounds:
    """Error bounds of one structure; names and units as the columns of :data:`mace_bounds.columns.BOUNDS`.

    Attributes
    ----------
    id, formula : str
    n_atoms : int
    energy_model_ev, energy_expected_ev : float
        Total energy by the model, and with the expected error added, eV.
    energy_lower_ev, energy_upper_ev : float
        Bounds of the total DFT energy at the level, eV.
    expected_error_mev_per_atom, std_mev_per_atom, lower_mev_per_atom, upper_mev_per_atom : float
        Of E_DFT - E_model, meV/atom.
    level : float
        Nominal coverage of the bounds.
    extrapolation_grade, novelty : float
        How far from the head's data; above 1 raises the flag ``extrapolates``.
    seen_in : str
        What the composition was used for before.
    quantity : str
        What the bounds are of.
    flags : dict of str to str
        Raised flags with what they mean.
    model, model_digest, head, head_digest, version : str
        What the bounds come from.
    """

    id: str
    formula: str
    n_atoms: int
    energy_model_ev: float
    energy_expected_ev: float
    energy_lower_ev: float
    energy_upper_ev: float
    expected_error_mev_per_atom: float
    std_mev_per_atom: float | None
    lower_mev_per_atom: float
    upper_mev_per_atom: float
    level: float
    extrapolation_grade: float
    novelty: float | None
    seen_in: str
    flags: dict[str, str]
    quantity: str
    model: str
    model_digest: str
    head: str
    head_digest: str
    version: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Bounds:
        """Take a row of the bounds table that has no reason."""
        values = {field.name: row[field.name] for field in fields(cls)}
        values["flags"] = {name: FLAGS[name].meaning for name in flag_names(row["flags"]) if name in FLAGS}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        flags = f"; {', '.join(self.flags)}" if self.flags else ""
        return (
            f"{self.formula}: {self.energy_model_ev:.4f} eV, {self.quantity} from {self.energy_lower_ev:.4f} to "
            f"{self.energy_upper_ev:.4f} eV ({100 * self.level:g} % bounds{flags})"
        )


class BoundsPredictor:
    """A frozen model and its calibrated head.

    Parameters
    ----------
    model : str, path, torch.nn.Module or Backbone, optional
        ``"mini"``, a name that mace knows, a path, or a loaded model; the head's model where only a head is given, else
        ``"medium-mpa-0"``.
    head : str, path or CalibratedHead, optional
        The name of an installed head, a head folder, or a loaded head; by default the first for total energies
        that fits the model.
    level : float
        Nominal coverage of the bounds, one that the head is calibrated for.
    settings : ExtractSettings
        Of these ``energy_key``, ``max_atoms``, ``device``, ``dtype`` and ``memory_bytes`` are used.
    quantity : str
        What the labels of structures are; they are left aside where the head bounds another quantity.
    trained_on : str, optional
        What the model was trained on, where neither it nor the head says so: formulas or structures
        (:func:`mace_bounds.structures.read_compositions`). Tables then tell what is ``unseen``.

    Raises
    ------
    HeadError
        If no head fits the model, or the level is not calibrated.
    ModelError
        If the model cannot be loaded.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from mace_bounds import BoundsPredictor
    >>> predictor = BoundsPredictor("mini")  # doctest: +SKIP
    >>> bounds = predictor.bounds(bulk("NaCl", "rocksalt", 5.64))  # doctest: +SKIP
    >>> bounds.energy_lower_ev < bounds.energy_upper_ev  # doctest: +SKIP
    True
    """

    def __init__(
        self,
        model: ModelLike | None = None,
        head: str | Path | CalibratedHead | None = None,
        *,
        level: float = 0.95,
        settings: ExtractSettings | None = None,
        quantity: str = TOTAL_ENERGY,
        trained_on: str | None = None,
    ) -> None:
        settings = settings or ExtractSettings()
        given = None if trained_on is None else read_compositions(trained_on)
        # a checkpoint, whose tensors are known only when it is loaded, comes before its head; a name comes after it,
        # so that nothing is downloaded or loaded where no head fits
        name = model if isinstance(model, (str, Path)) and not Path(model).is_file() else None
        loaded = None if model is None or name is not None else settings.load(model)
        self.head = head if isinstance(head, CalibratedHead) else self._head(name, head, loaded)
        self.level = self.head.levels.nearest(level)
        self.head.check_energies()
        identity = self.head.identity
        if loaded is None:
            named = _named_by_the_head(self.head) if name is None else name
            _check_file(self.head, named)
            loaded = settings.load(named, identity.model_head)
        self.model: Backbone = loaded
        self.head.check_fits(self.model.name, self.model.digest, self.model.head, identity.kind)
        self.settings = settings
        self.quantity = quantity
        self.training_keys = joined_keys(
            self.model.training_compositions, self.head.training_compositions, given
        )

    @staticmethod
    def _head(model: str | Path | None, head: str | Path | None, loaded: Backbone | None) -> CalibratedHead:
        if loaded is not None:
            return load_head(find_head(loaded.name, head, loaded.digest))
        return load_head(find_head(model, head))

    @property
    def kind(self) -> FeatureKind:
        """Which features the head was fitted on."""
        return "descriptors" if self.head.identity.kind == "descriptors" else "readout"

    def predict(self, structures: Source, level: float | None = None) -> pd.DataFrame:
        """Bound the DFT energy of each structure.

        Parameters
        ----------
        structures : path, str, object or iterable
            Anything that :func:`mace_bounds.read` takes: a file, a folder, a glob, ``Structure``, ``Atoms``,
            ``ComputedStructureEntry``, or several of them; iterables are taken as they come.
        level : float, optional
            Another level than the predictor's.

        Returns
        -------
        DataFrame
            One row per structure, in order, with the columns :data:`mace_bounds.columns.BOUNDS`. A structure that
            cannot be scored has a ``reason``.

        Raises
        ------
        SourceError
            If ``structures`` names nothing.
        """
        import pandas as pd

        parts, labels = list[pd.DataFrame](), list[pd.DataFrame]()
        for rows in self._rows(structures):
            parts.append(self.table(rows, level))
            labels.append(rows.table[list(LABEL_COLUMNS)])
        # a source is judged as a whole, after the last of its structures
        refused = self._refused(pd.concat(labels, ignore_index=True))
        return refuse_labels(pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0], refused)

    def stream(self, structures: Source, level: float | None = None) -> Iterator[pd.DataFrame]:
        """Parts of :meth:`predict`, some structures at a time, in bounded memory; labels are judged by part."""
        for rows in self._rows(structures):
            yield self.table(without_refused(rows, self._refused(rows.table)), level)

    def bounds(self, structure: StructureLike, level: float | None = None) -> Bounds:
        """Bound one structure.

        Raises
        ------
        StructureError
            With the reason, if it cannot be scored, or if it is more than one.
        """
        rows = records(self.predict(structure, level))
        if len(rows) != 1:
            raise StructureError(f"bounds() takes one structure, and these are {len(rows)}; use predict().")
        if rows[0]["reason"] is not None:
            raise StructureError(str(rows[0]["reason"]))
        return Bounds.of(rows[0])

    def explain(
        self, structure: StructureLike, level: float | None = None, *, n_neighbours: int = N_NEIGHBOURS
    ) -> Explanation:
        """Say why the bounds of one structure are as wide as they are.

        Parameters
        ----------
        structure
            Anything that :meth:`bounds` takes.
        level : float, optional
            Another level than the predictor's.
        n_neighbours : int
            How many of the nearest labelled crystals are named.

        Raises
        ------
        StructureError
            With the reason, if it cannot be scored, or if it is more than one.
        """
        explained = self.predict_one(structure, level, n_neighbours=n_neighbours)[1]
        if isinstance(explained, str):
            raise StructureError(explained)
        return explained

    def predict_one(
        self, structure: StructureLike, level: float | None = None, *, n_neighbours: int = N_NEIGHBOURS
    ) -> tuple[pd.DataFrame, Explanation | str]:
        """Table of one structure as :meth:`predict` makes it, and its explanation or the reason why it has none."""
        records_of = list(islice(self.settings.read(structure, self.model), 2))
        if len(records_of) != 1:
            raise StructureError("explain takes one structure, and these are more; give one of them.")
        rows = extract_rows(records_of, self.model, self.kind, atoms=self.head.wants_atoms)
        table = refuse_labels(self.table(rows, level), refused_labels(rows.table))
        (row,) = records(table)
        crystal = records_of[0].crystal
        if row["reason"] is not None or crystal is None:
            return table, str(row["reason"])
        return table, explain_row(rows, crystal.numbers, self.head, Bounds.of(row), n_neighbours)

    def table(self, rows: FeatureRows, level: float | None = None, *, detailed: bool = False) -> pd.DataFrame:
        """Bounds for rows of features of this model, from a store or from :func:`mace_bounds.features.engines.work`.

        Parameters
        ----------
        rows : FeatureRows
        level : float, optional
            Another level than the predictor's.
        detailed : bool
            With the columns that coverage is measured from.
        """
        level = self.level if level is None else self.head.levels.nearest(level)
        keys = self.training_keys
        if detailed:
            return detailed_table(rows, self.head, level, keys)
        return bounds_table(rows, self.head, level, training_keys=keys)

    def _refused(self, labels: pd.DataFrame) -> Refused:
        return refused_labels(labels, self.quantity, self.head.identity.quantity)

    def _rows(self, structures: Source) -> Iterator[FeatureRows]:
        source = self.settings.read(structures, self.model)
        while batch := list(islice(source, _BATCH)):
            yield extract_rows(batch, self.model, self.kind, atoms=self.head.wants_atoms)

    def __repr__(self) -> str:
        return f"BoundsPredictor({self.model!r}, {self.head!r}, level={self.level:g})"


def _named_by_the_head(head: CalibratedHead) -> str:
    """The model that a head names; a head must not make this program load a file that the user has not named."""
    name = head.identity.model
    if name not in _known_names():
        raise HeadError(
            f"the head {head.name} was made for the checkpoint {name!r} (digest {head.identity.model_digest[:12]}), "
            "which is no model that is known by its name; name it with --model."
        )
    return name


def _check_file(head: CalibratedHead, name: str | Path) -> None:
    """Compare the file of a model that was not given by its path with the one the head was made with: unread."""
    wanted = head.identity.model_file_sha256
    if wanted and find_weights(name).url is not None:
        path = fetch_weights(name).path
        if file_sha256(path) != wanted:
            raise HeadError(
                f"{path}, the file of {name}, is not the one that the head {head.name} was made with (SHA-256 "
                f"{wanted[:12]}), and it was not loaded; fetch it again, or give the path of a file that you trust "
                "with --model."
            )


def _known_names() -> set[str]:
    return {model.name for model in list_models()}


def score(
    structures: Source,
    *,
    model: ModelLike | None = None,
    head: str | Path | CalibratedHead | None = None,
    level: float = 0.95,
    settings: ExtractSettings | None = None,
    quantity: str = TOTAL_ENERGY,
) -> pd.DataFrame:
    """Bound the DFT energy of each structure: :meth:`BoundsPredictor.predict` in one call.

    Loading takes seconds: for more than one call make a :class:`BoundsPredictor`, whose parameters these are.
    """
    predictor = BoundsPredictor(model, head, level=level, settings=settings, quantity=quantity)
    return predictor.predict(structures)
