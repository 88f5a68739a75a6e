"""One thread owns the models: requests wait in a bounded line and go through the network together."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mace_bounds.backbones import Backbone, FeatureBlock, FeatureKind
from mace_bounds.bounds import MOST_ATOMS, MOST_STRUCTURES, BoundsPredictor, n_atoms_of, pieces
from mace_bounds.errors import HeadError
from mace_bounds.examples import example_files
from mace_bounds.features import FeatureRows
from mace_bounds.service.problems import Problem
from mace_bounds.structures import Crystal, Record

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.service.config import ServiceConfig
    from mace_bounds.service.metrics import Metrics

_FIRST = "NaCl"
_LOG = logging.getLogger("mace_bounds.service")


@dataclass(eq=False)
class Task:
    """What one request wants of the model."""

    head: str  # name of a predictor
    structures: list[Record]
    level: float
    neighbours: int = 0  # of an explanation; 0 for a table
    energies: Mapping[str, float] | None = None  # by id, of a model that does not run here
    call: Callable[[], Any] | None = None  # instead of structures: what is done in its turn
    answer: Future[Any] = field(default_factory=Future)
    parts: list[FeatureRows] = field(default_factory=list)
    table: pd.DataFrame | None = None  # of a task that went together with others
    since: float = field(default_factory=time.monotonic)
    pieces: deque[list[Record]] = field(
        init=False
    )  # that are left: cut as :meth:`BoundsPredictor.predict` does
    at_once: bool = field(init=False)  # whether it is a table of one piece

    def __post_init__(self) -> None:
        self.pieces = deque(pieces(self.structures, n_atoms_of))
        self.at_once = not self.neighbours and len(self.pieces) == 1

    @property
    def piece(self) -> list[Record]:
        """The structures that come next."""
        return self.pieces[0] if self.pieces else []

    @property
    def size(self) -> float:
        """Share of a full batch that the next piece is."""
        return max(len(self.piece) / MOST_STRUCTURES, sum(map(n_atoms_of, self.piece)) / MOST_ATOMS)

    @property
    def shares(self) -> bool:
        """Whether it goes through the model with others: ids, by which energies are given, are its own."""
        return self.call is None and self.energies is None


class CachedBackbone:
    """A backbone that remembers the features of crystals, the latest first, as many as fit into memory.

    Features depend on the crystal and the model alone, so that one memory serves all heads and all levels.
    """

    def __init__(self, inner: Backbone, max_bytes: float) -> None:
        self._inner, self._max_bytes = inner, max_bytes
        self._kept: OrderedDict[tuple[bytes, str, bool], tuple[Any, ...]] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """:meth:`Backbone.extract`, where only what is new goes through the model."""
        keys = [(_key(crystal), kind, atoms) for crystal in crystals]
        new = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in self._kept}
        self.hits += len(keys) - len(new)
        self.misses += len(new)
        made: dict[tuple[bytes, str, bool], tuple[Any, ...]] = {}
        if new or not keys:
            block = self._inner.extract(list(new.values()), kind, atoms=atoms)
            if not keys:
                return block
            ends = np.cumsum([len(crystal.numbers) for crystal in new.values()])
            singles = [None] * len(new) if block.atoms is None else np.split(block.atoms, ends[:-1])
            reasons = block.reasons or (None,) * len(new)
            values = zip(
                block.features, block.fixed_energy_ev, block.energy_ev, singles, reasons, strict=True
            )
            made = dict(zip(new, values, strict=True))
        rows = [made[key] if key in made else self._kept[key] for key in keys]
        features, fixed, energy, single, why = zip(*rows, strict=True)
        for key in keys:
            self._keep(key, made.get(key))
        return FeatureBlock(
            np.stack(features),
            np.array(fixed),
            np.array(energy),
            np.concatenate(single) if atoms else None,
            why,
        )

    def _keep(self, key: tuple[bytes, str, bool], values: tuple[Any, ...] | None) -> None:
        if values is not None and key not in self._kept:
            # copies, as views would hold whole batches
            self._kept[key] = tuple(np.array(v) if isinstance(v, np.ndarray) else v for v in values)
            self._bytes += _size(values)
        if key in self._kept:
            self._kept.move_to_end(key)
        while self._bytes > self._max_bytes and self._kept:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _key(crystal: Crystal) -> bytes:
    arrays = (crystal.cell, crystal.numbers, crystal.positions)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).digest()


def _size(values: tuple[Any, ...]) -> int:
    return 400 + sum(v.nbytes for v in values if isinstance(v, np.ndarray))


def load_predictors(config: ServiceConfig) -> dict[str, BoundsPredictor]:
    """Load the model and the heads of a configuration, by the names of the heads.

    Raises
    ------
    HeadError
        If no head fits, or two have one name.
    ModelError
        If the model cannot be loaded.
    """
    predictors: dict[str, BoundsPredictor] = {}
    backbones: dict[str, Backbone] = {}
    for head in config.heads or (None,):
        made = BoundsPredictor(config.model, head, settings=config.extract)
        # the heads of one model share it and its memory
        shared = backbones.setdefault(
            made.model.digest, cast("Backbone", CachedBackbone(made.model, config.cache_bytes))
        )
        made.model = shared
        if made.head.name in predictors:
            raise HeadError(
                f"two heads have the name {made.head.name}; give one of them another folder name."
            )
        predictors[made.head.name] = made
        if made.energy_model is not None:
            made.predict(example_files(_FIRST))  # what is compiled and loaded at first use
    return predictors


class Worker:
    """The thread that owns the predictors.

    Parameters
    ----------
    load : callable
        Gives the predictors by name; called once, in the thread.
    window_s : float
        How long a task waits for others that are on their way; with 0 each goes through the model alone, so that its
        answer does not depend on them even by round-off.
    coming : callable
        Number of requests on their way that have not been submitted yet.
    metrics : Metrics
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, BoundsPredictor]],
        window_s: float,
        coming: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._load, self._window_s, self._coming, self._metrics = load, window_s, coming, metrics
        self._line: deque[Task] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self.predictors: Mapping[str, BoundsPredictor] = {}
        self.loaded = threading.Event()
        self.failure: str = ""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether tasks are taken."""
        return self.loaded.is_set() and not self.failure and not self._ends and self._thread.is_alive()

    def start(self) -> None:
        """Start to load."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is in the line, and end."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, task: Task) -> Future[Any]:
        """Put a task at the end of the line; Problem 503 if none are taken."""
        with self._changed:
            if not self.ready:
                raise Problem(503, "The service is ending", "Ask again in a moment.", retry_after_s=2)
            self._line.append(task)
            self._metrics.waiting.set(len(self._line))
            self._changed.notify()
        return task.answer

    def _run(self) -> None:
        try:
            self.predictors = self._load()
        except Exception as error:
            self.failure = str(error) or type(error).__name__
            _LOG.error("the model cannot be loaded: %s", self.failure)
            return
        finally:
            self.loaded.set()
        self._metrics.ready.set(1)
        while batch := self._next():
            start = time.monotonic()
            self._compute(batch)
            self._metrics.batch(sum(len(task.piece) for task in batch), time.monotonic() - start)
            models = {id(p.model): p.model for p in self.predictors.values()}
            self._metrics.remembered(sum(getattr(model, "hits", 0) for model in models.values()))
            self._advance(batch)

    def _next(self) -> list[Task]:
        """Wait for tasks of one head that fill a batch; none at the end."""
        with self._changed:
            while True:
                self._line = deque(task for task in self._line if not task.answer.cancelled())
                if self._line:
                    full = sum(task.size for task in self._line) >= 1
                    left = self._line[0].since + self._window_s - time.monotonic()
                    if full or left <= 0 or self._ends or not self._coming():
                        break
                    self._changed.wait(left)
                elif self._ends:
                    return []
                else:
                    self._changed.wait()
            batch, size = list[Task](), 0.0
            for task in self._line:
                first = self._line[0]
                alone = self._window_s == 0 or not first.shares or not task.shares
                together = not alone and size + task.size <= 1 and task.head == first.head
                if not batch or together:
                    batch.append(task)
                    size += task.size
            self._line = deque(task for task in self._line if task not in batch)
            self._metrics.waiting.set(len(self._line))
            return batch

    def _compute(self, batch: list[Task]) -> None:
        """Features of the next piece of every task, together; alone where that fails, to find out whose fault it is."""
        if batch[0].call is not None:
            return
        try:
            self._compute_together(batch)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for task in batch:
                task.table = None
                self._compute([task])

    def _compute_together(self, batch: list[Task]) -> None:
        predictor = self.predictors[batch[0].head]
        rows = predictor.extract([record for task in batch for record in task.piece], batch[0].energies)
        if len(batch) == 1:
            batch[0].parts.append(rows)
            return
        ends = np.cumsum([len(task.piece) for task in batch])
        where = {id(t): np.arange(end - len(t.piece), end) for t, end in zip(batch, ends, strict=True)}
        for level in {task.level for task in batch if task.at_once}:
            group = [task for task in batch if task.at_once and task.level == level]
            sizes = [len(task.piece) for task in group]
            together = rows.take(np.concatenate([where[id(task)] for task in group]))
            for task, table in zip(group, predictor.predict_apart(together, sizes, level), strict=True):
                task.table = table
        for task in batch:
            if not task.at_once:
                task.parts.append(rows.take(where[id(task)]))

    def _advance(self, batch: list[Task]) -> None:
        """Answer what is finished; what is not goes to the end of the line, so that none waits for a large one."""
        unfinished = []
        for task in batch:
            if task.pieces:
                task.pieces.popleft()
            if task.answer.done():
                continue
            if task.pieces:
                unfinished.append(task)
                continue
            try:
                _give(task, self._result(task))
            except Exception as error:
                _fail(task, error)
        with self._changed:
            self._line.extend(unfinished)

    def _result(self, task: Task) -> Any:
        if task.call is not None:
            return task.call()
        if task.table is not None:
            return task.table
        predictor = self.predictors[task.head]
        if task.neighbours:
            return predictor.explain_rows(task.structures[0], task.parts[0], task.level, task.neighbours)
        return predictor.predict_rows(task.parts, task.level)


def _give(task: Task, result: object) -> None:
    with suppress(InvalidStateError):  # cancelled in between
        task.answer.set_result(result)


def _fail(task: Task, error: Exception) -> None:
    with suppress(InvalidStateError):
        task.answer.set_exception(error)
