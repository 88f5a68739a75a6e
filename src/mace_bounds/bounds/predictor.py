"""A model and its head, loaded once: structures in, bounds out. Everything that bounds an energy goes through here."""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mace_bounds.backbones import DEFAULT_MODEL, Backbone, digest_of
from mace_bounds.bounds.deciding import Deciding
from mace_bounds.bounds.energies import GivenEnergies, energy_note, of_another_reference, with_energies
from mace_bounds.bounds.explanation import N_NEIGHBOURS, Bounds, Explanation, explain_row
from mace_bounds.bounds.library import check_file, find_head, load_head, named_by_the_head
from mace_bounds.bounds.pieces import n_atoms_of, pieces
from mace_bounds.bounds.table import bounds_table, detailed_table, refuse_labels
from mace_bounds.calibration import CalibratedHead, readout_coefficients
from mace_bounds.errors import HeadError, ModelError, StructureError
from mace_bounds.features import LABEL_COLUMNS, ExtractSettings, extract_rows, refused_labels, without_refused
from mace_bounds.structures import TOTAL_ENERGY, joined_keys, read_compositions
from mace_bounds.tables import records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from mace_bounds.backbones import FeatureKind
    from mace_bounds.bounds.energies import Energies
    from mace_bounds.features import FeatureRows, Refused
    from mace_bounds.head import Coefficients
    from mace_bounds.structures import Record, Source, StructureLike

ModelLike: TypeAlias = "str | Path | torch.nn.Module | Backbone"
"""A model by its name or path, or loaded."""


class BoundsPredictor(Deciding):
    """A frozen model and its calibrated head.

    Parameters
    ----------
    model : str, path, torch.nn.Module or Backbone, optional
        ``"mini"``, ``"chgnet"``, a name of mace's, a path, or a loaded model; the head's where only one is given, or
        ``"medium-mpa-0"``. With a head of published energies it gives the energies, unless it is that of the features.
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
        model = DEFAULT_MODEL if model is None and head is None else model
        # a checkpoint, whose tensors are known only when it is loaded, comes before its head; a name comes after it,
        # so that nothing is downloaded or loaded where no head fits
        name = model if isinstance(model, (str, Path)) and not Path(model).is_file() else None
        loaded = None if model is None or name is not None else settings.load(model)
        self.head = head if isinstance(head, CalibratedHead) else self._head(name, head, loaded)
        self.level = self.head.levels.nearest(level)
        self.settings = settings
        identity = self.head.identity
        self._energy_model: str | Path | Backbone | None = None
        if identity.features_of and not self._gives_the_features(name if loaded is None else loaded):
            self._energy_model, name, loaded = name if loaded is None else loaded, None, None
        if loaded is None:
            named = named_by_the_head(self.head) if name is None else name
            check_file(self.head, named)
            loaded = settings.load(named, identity.model_head)
        self.model: Backbone = loaded
        self.quantity = quantity
        own = None if self.head.published else self.model.training_compositions  # of another model: no use
        self.training_keys = joined_keys(own, self.head.training_compositions, given)
        self.head.check_model(self.model)

    def _gives_the_features(self, model: str | Path | Backbone | None) -> bool:
        """Whether a model is the one whose features a head of published energies takes; None is."""
        of = self.head.identity
        return model is None or str(model) == of.backbone or digest_of(model) == of.model_digest

    @cached_property
    def energy_model(self) -> Backbone | None:
        """The model whose energies are bounded: :attr:`model`, or another one; None where energies must be given.

        Raises
        ------
        ModelError
            If it cannot be loaded.
        """
        if not self.head.published:
            return self.model
        if self._energy_model is None:
            return None
        try:
            return self.settings.load(self._energy_model)
        except ModelError as error:
            raise ModelError(
                f"{str(error).rstrip('.')}; or give its energies (--predictions TABLE --energy-column NAME, in Python "
                "energies=): the head needs nothing else of it."
            ) from error

    @property
    def note(self) -> str:
        """A sentence for every output (:func:`energy_note`)."""
        return energy_note(self.head)

    def refuse_if_published(self) -> None:
        """HeadError if energies have to be given, for what computes them itself."""
        if self.head.published:
            own = self.head.identity
            raise HeadError(
                f"the head {self.head.name} takes energies of {own.model} and features of {own.backbone}, and an audit "
                "computes both with one model; bound structures with mace-bounds score, or measure coverage with heads "
                f"fitted to your labels (mace-bounds audit SOURCE OUT --model {own.backbone} --predictions TABLE "
                "--energy-column NAME), or build a head of the model's own features (mace-bounds build)."
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

    def predict(
        self, structures: Source, level: float | None = None, *, energies: Energies | None = None
    ) -> pd.DataFrame:
        """Bound the DFT energy of each structure.

        Parameters
        ----------
        structures : path, str, object or iterable
            Anything that :func:`mace_bounds.read` takes: a file, a folder, a glob, ``Structure``, ``Atoms``,
            ``ComputedStructureEntry``, or several of them; iterables are taken as they come.
        level : float, optional
            Another level than the predictor's.
        energies : array, mapping, callable or ASE calculator, optional
            For a head of published energies, total energies of the cells by the model that the head names, eV: one for
            each structure in order, by id, a function of ``ase.Atoms``, or a calculator.

        Returns
        -------
        DataFrame
            A row per structure, in order: :data:`mace_bounds.columns.BOUNDS`. What cannot be scored has a ``reason``.

        Raises
        ------
        SourceError
            If ``structures`` names nothing.
        HeadError
            If the head needs energies and there are none, or has those of its model.
        LabelError
            If ``energies`` are not one for each structure.
        """
        return self.predict_rows(self.rows(structures, energies), level)

    def extract(self, structures: Sequence[Record], energies: Energies | None = None) -> FeatureRows:
        """Features and energies of structures that have been read, computed together.

        For those who schedule the work themselves, as the service does: :meth:`predict_rows` makes the table.
        ``energies`` are as in :meth:`predict`, by id where a source is extracted in parts.

        Raises
        ------
        HeadError
            If the energies have to be given.
        """
        return self._bounded(list(structures), self._given(energies))

    def predict_rows(self, parts: Iterable[FeatureRows], level: float | None = None) -> pd.DataFrame:
        """Table that :meth:`predict` gives, of a source whose features come in parts; there is at least one part."""
        import pandas as pd

        tables, labels = list[pd.DataFrame](), list[pd.DataFrame]()
        for rows in parts:
            tables.append(self.table(rows, level))
            labels.append(rows.table[list(LABEL_COLUMNS)])
        # a source is judged as a whole, after the last of its structures
        refused = self._refused(pd.concat(labels, ignore_index=True))
        return refuse_labels(pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0], refused)

    def predict_apart(
        self, rows: FeatureRows, sizes: Sequence[int], level: float | None = None
    ) -> list[pd.DataFrame]:
        """Tables of several sources whose features were computed together: :meth:`predict` of each but for round-off.

        Parameters
        ----------
        rows : FeatureRows
            Of all sources, one after the other.
        sizes : sequence of int
            How many rows each has.
        level : float, optional
            Another level than the predictor's.
        """
        table, tables = self.table(rows, level), []
        labelled = rows.table["energy_ev"].notna().to_numpy()
        ends = np.cumsum(sizes)
        for start, end in zip(ends - sizes, ends, strict=True):
            part = table.iloc[start:end].reset_index(drop=True)
            if labelled[start:end].any():  # labels are judged by source
                part = refuse_labels(part, self._refused(rows.table.iloc[start:end]))
            tables.append(part)
        return tables

    def stream(
        self, structures: Source, level: float | None = None, *, energies: Energies | None = None
    ) -> Iterator[pd.DataFrame]:
        """Parts of :meth:`predict`, some structures at a time, in bounded memory; labels are judged by part."""
        for rows in self.rows(structures, energies):
            yield self.table(without_refused(rows, self._refused(rows.table)), level)

    def bounds(
        self, structure: StructureLike, level: float | None = None, *, energies: Energies | None = None
    ) -> Bounds:
        """Bound one structure.

        Raises
        ------
        StructureError
            With the reason, if it cannot be scored, or if it is more than one.
        """
        rows = records(self.predict(structure, level, energies=energies))
        if len(rows) != 1:
            raise StructureError(f"bounds() takes one structure, and these are {len(rows)}; use predict().")
        if rows[0]["reason"] is not None:
            raise StructureError(str(rows[0]["reason"]))
        return Bounds.of(rows[0])

    def explain(
        self,
        structure: StructureLike,
        level: float | None = None,
        *,
        n_neighbours: int = N_NEIGHBOURS,
        energies: Energies | None = None,
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
        energies : optional
            As in :meth:`predict`.

        Raises
        ------
        StructureError
            With the reason, if it cannot be scored, or if it is more than one.
        """
        explained = self.predict_one(structure, level, n_neighbours=n_neighbours, energies=energies)[1]
        if isinstance(explained, str):
            raise StructureError(explained)
        return explained

    def predict_one(
        self,
        structure: StructureLike,
        level: float | None = None,
        *,
        n_neighbours: int = N_NEIGHBOURS,
        energies: Energies | None = None,
    ) -> tuple[pd.DataFrame, Explanation | str]:
        """Table of one structure as :meth:`predict` makes it, and its explanation or the reason why it has none."""
        records_of = list(islice(self.settings.read(structure, self.model), 2))
        if len(records_of) != 1:
            raise StructureError("explain takes one structure, and these are more; give one of them.")
        rows = self._bounded(records_of, self._given(energies))
        return self.explain_rows(records_of[0], rows, level, n_neighbours)

    def explain_rows(
        self,
        structure: Record,
        rows: FeatureRows,
        level: float | None = None,
        n_neighbours: int = N_NEIGHBOURS,
    ) -> tuple[pd.DataFrame, Explanation | str]:
        """:meth:`predict_one` of a structure whose features are there, from :meth:`extract`."""
        table = refuse_labels(self.table(rows, level), self._refused(rows.table))
        (row,) = records(table)
        if row["reason"] is not None or structure.crystal is None:
            return table, str(row["reason"])
        explained = explain_row(rows, structure.crystal.numbers, self.head, Bounds.of(row), n_neighbours)
        return table, explained

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
        refused = refused_labels(labels, self.quantity, self.head.identity.quantity)
        return refused if self.head.material is None else refused | of_another_reference(labels, self.head)

    def _given(self, energies: Energies | None) -> GivenEnergies | None:
        """The energies that the user brings; HeadError if the head needs some, or has those of its model."""
        own = self.head.identity
        if energies is not None and not self.head.published:
            raise HeadError(
                f"the head {self.head.name} bounds the energies that {own.model} computes itself, no given ones; for "
                "those of another model use a head of its energies (mace-bounds heads lists what there is)."
            )
        if energies is None and self.energy_model is None:
            raise HeadError(
                f"the head {self.head.name} bounds energies of {own.model}, and {own.backbone} gives only features: "
                "give the energies (--predictions TABLE --energy-column NAME, in Python energies=), or the model "
                "itself (--model)."
            )
        return (
            energies if energies is None or isinstance(energies, GivenEnergies) else GivenEnergies(energies)
        )

    def rows(self, structures: Source, energies: Energies | None = None) -> Iterator[FeatureRows]:
        """Features of structures as :meth:`predict` takes them, with the energies that are bounded, some at a time."""
        given = self._given(energies)
        source = self.settings.read(structures, self.model)
        for batch in pieces(source, n_atoms_of):
            yield self._bounded(batch, given)
        if given is not None:
            given.check_all_used()

    def _bounded(self, batch: list[Record], given: GivenEnergies | None) -> FeatureRows:
        """Rows of features with the energies that are bounded."""
        if self.head.material is not None:
            batch = [self.head.material.checked(record) for record in batch]
        rows = extract_rows(batch, self.model, self.kind, atoms=self.head.wants_atoms)
        if given is not None:
            return given.put(rows, batch)
        model = self.energy_model
        if model is None or model is self.model:
            return rows
        other = extract_rows(batch, model).table
        energy_ev = other["energy_model_ev"].to_numpy(dtype="float64")
        return with_energies(rows, energy_ev, other["reason"].to_numpy(dtype=object), check=True)

    def coefficients(self, fractions: NDArray[np.float64] | None = None) -> Coefficients:
        """Weights of the readout, refitted to one chemistry (:func:`mace_bounds.calibration.readout_coefficients`)."""
        return readout_coefficients(self.head, self.model, fractions)

    def __repr__(self) -> str:
        return f"BoundsPredictor({self.model!r}, {self.head!r}, level={self.level:g})"
