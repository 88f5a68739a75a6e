"""Large requests as jobs: kept on the disk, gone on with after a restart, one at a time beside the small ones.

A job is a row of a SQLite table and a folder: its files as they came, a feature store that is filled shard by shard,
and the bounds at the end. The features of a shard go through the line of the worker like those of any request. A
process that is killed leaves a job unfinished, and the next one that runs the service goes on where the store ends.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from mace_bounds._io import atomic
from mace_bounds.backbones import FeatureBlock, FeatureKind
from mace_bounds.bounds import MOST_STRUCTURES, NO_ENERGY, pieces, with_energies
from mace_bounds.errors import MaceBoundsError, ServiceError
from mace_bounds.features import FeatureRows, extract
from mace_bounds.service.energies import GivenTotals
from mace_bounds.service.problems import Problem
from mace_bounds.service.worker import Task, Worker
from mace_bounds.structures import Crystal, Upload
from mace_bounds.tables import write_table

if TYPE_CHECKING:
    from mace_bounds.service.config import ServiceConfig
    from mace_bounds.service.metrics import Metrics

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
RESULT, ENERGIES = "bounds.parquet", "energies.json"
_LOG = logging.getLogger("mace_bounds.service")
_TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, head TEXT NOT NULL, level REAL NOT NULL, status TEXT NOT NULL,
    made REAL NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL, reason TEXT NOT NULL)"""
_POLL_S = 0.5


class Ending(BaseException):
    """The service ends, or the job was cancelled: what is there stays there. No structure is to blame."""


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it."""

    id: str
    owner: str
    head: str
    level: float
    status: str
    made: float  # seconds since 1970
    done: int  # structures that are done
    failed: int  # of these without bounds
    reason: str  # why it failed

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = asdict(self)
        del values["owner"]
        return values


class Jobs:
    """The jobs of a service.

    Parameters
    ----------
    folder : path
        Where they are kept; several processes may share it.
    worker : Worker
    config : ServiceConfig
    metrics : Metrics
    """

    def __init__(self, folder: Path, worker: Worker, config: ServiceConfig, metrics: Metrics) -> None:
        self._folder, self._worker, self._config, self._metrics = folder, worker, config, metrics
        self._ends = threading.Event()
        self._new = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._database() as database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ServiceError(
                f"jobs cannot be kept in {folder} ({error}); name another folder with --state."
            ) from None

    def start(self) -> None:
        """Go on with what is there."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what runs as it is."""
        self._ends.set()
        self._new.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(
        self,
        uploads: Sequence[Upload],
        head: str,
        level: float,
        owner: str,
        energies: GivenTotals | None = None,
    ) -> Job:
        """Keep the files of a job, and put it at the end; Problem 503 if too many wait."""
        with self._database() as database:
            (n,) = database.execute(
                "SELECT COUNT(*) FROM jobs WHERE status IN (?, ?)", (WAITING, RUNNING)
            ).fetchone()
        if n >= self._config.max_jobs:
            raise Problem(
                503,
                f"{n} jobs wait or run, as many as the service takes",
                "Ask again later.",
                retry_after_s=60,
            )
        job = Job(secrets.token_urlsafe(16), owner, head, level, WAITING, time.time(), 0, 0, "")
        folder = self._folder / job.id
        folder.mkdir()
        for number, upload in enumerate(uploads):
            (folder / f"upload-{number:06d}").write_bytes(upload.data)
        if energies is not None:
            (folder / ENERGIES).write_bytes(energies.to_json())
        with atomic(folder / "uploads.json") as temporary:
            names = [{"name": upload.name, "label": upload.label} for upload in uploads]
            temporary.write_text(json.dumps(names), encoding="utf-8")
        with self._database() as database:
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(asdict(job).values())
            )
        self._new.set()
        return job

    def get(self, name: str, owner: str) -> Job:
        """A job of an owner; Problem 404 if there is none: another's is none."""
        with self._database() as database:
            row = database.execute("SELECT * FROM jobs WHERE id = ? AND owner = ?", (name, owner)).fetchone()
        if row is None:
            raise _no_job(name)
        return Job(*row)

    def all_of(self, owner: str) -> list[Job]:
        """All jobs of an owner, the latest first."""
        with self._database() as database:
            rows = database.execute(
                "SELECT * FROM jobs WHERE owner = ? ORDER BY made DESC", (owner,)
            ).fetchall()
        return [Job(*row) for row in rows]

    def cancel(self, name: str, owner: str) -> Job:
        """End a job that waits or runs; forget one that has ended."""
        job = self.get(name, owner)
        if job.status in (WAITING, RUNNING):
            self._set(job.id, CANCELLED)
        else:
            self._forget(job.id)
        return replace(job, status=CANCELLED if job.status in (WAITING, RUNNING) else "forgotten")

    def result(self, name: str, owner: str) -> Path:
        """File of the bounds of a job that is done; Problem 422 if it is not, 404 if it is gone."""
        job = self.get(name, owner)
        if job.status != DONE:
            raise Problem(
                422,
                f"The job is {job.status}{f': {job.reason}' if job.reason else ''}",
                "Ask when it is done.",
            )
        path = self._folder / job.id / RESULT
        if not path.exists():  # it is being forgotten
            raise _no_job(name)
        return path

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._folder / "jobs.sqlite", timeout=30)) as database, database:
            yield database

    def _set(self, name: str, status: str, reason: str = "") -> None:
        with self._database() as database:
            # what was cancelled stays so
            database.execute(
                "UPDATE jobs SET status = ?, reason = ? WHERE id = ? AND status != ?",
                (status, reason, name, CANCELLED),
            )

    def _progress(self, name: str, done: int, failed: int) -> None:
        with self._database() as database:
            database.execute("UPDATE jobs SET done = ?, failed = ? WHERE id = ?", (done, failed, name))
            (status,) = database.execute("SELECT status FROM jobs WHERE id = ?", (name,)).fetchone()
        if status == CANCELLED or self._ends.is_set():
            raise Ending

    def _forget(self, name: str) -> None:
        # files first: what is stopped between the two is forgotten the next time, and a job that is gone has no files
        shutil.rmtree(self._folder / name, ignore_errors=True)
        with self._database() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (name,))

    def _run(self) -> None:
        self._worker.loaded.wait()
        while not self._ends.is_set():
            self._remove_old()
            ran = False
            for name in self._unfinished():
                if self._ends.is_set():
                    break
                ran |= self._try(name)
            if not ran:
                self._new.wait(_POLL_S)
                self._new.clear()

    def _unfinished(self) -> list[str]:
        with self._database() as database:
            rows = database.execute(
                "SELECT id FROM jobs WHERE status IN (?, ?) ORDER BY made", (WAITING, RUNNING)
            ).fetchall()
        return [name for (name,) in rows]

    def _remove_old(self) -> None:
        kept_s = 86_400 * self._config.job_days
        with self._database() as database:
            rows = database.execute(
                "SELECT id FROM jobs WHERE made < ? AND status NOT IN (?, ?)",
                (time.time() - kept_s, WAITING, RUNNING),
            ).fetchall()
        for (name,) in rows:
            self._forget(name)

    def _try(self, name: str) -> bool:
        """Run a job that no other process runs; the lock of one that was killed is free."""
        folder = self._folder / name
        try:
            with FileLock(folder / ".running", timeout=0):
                with self._database() as database:
                    row = database.execute("SELECT * FROM jobs WHERE id = ?", (name,)).fetchone()
                if row is None or Job(*row).status not in (WAITING, RUNNING):
                    return False
                self._set(name, RUNNING)
                self._compute(Job(*row), folder)
                self._set(name, DONE)
                self._metrics.job(DONE)
        except (Timeout, FileNotFoundError):
            return False
        except Ending:
            self._set(name, WAITING)
        except MaceBoundsError as error:
            self._set(name, FAILED, str(error))
            self._metrics.job(FAILED)
        except Exception as error:  # the text may hold a structure
            _LOG.exception("a job has failed")
            self._set(name, FAILED, f"a fault in mace-bounds ({type(error).__name__}); report it.")
            self._metrics.job(FAILED)
        return True

    def _compute(self, job: Job, folder: Path) -> None:
        predictor = self._worker.predictors.get(job.head)
        if predictor is None:
            raise ServiceError(f"the head {job.head} is not served any more; start the service with it.")
        settings = replace(
            self._config.extract,
            kind=predictor.kind,
            atoms=predictor.head.wants_atoms,
            shard_rows=MOST_STRUCTURES,
            workers=1,
        )
        model: Any = _Lined(predictor.model, self._worker, job.head, self._ends)
        store = extract(
            settings.read(_uploads(folder, int(self._config.max_unpacked_bytes))),
            folder / "store",
            model,
            settings,
            progress=lambda done, failed: self._progress(job.id, done, failed),
        )
        parts = store.rows(atoms=settings.atoms)
        if (folder / ENERGIES).exists():
            given = GivenTotals.from_json((folder / ENERGIES).read_bytes())
            energies = given.by_id([str(name) for rows in store.rows() for name in rows.table["id"]])
            parts = (_with_given(rows, energies) for rows in parts)
        table = predictor.predict_rows(parts, job.level)
        write_table(table, folder / RESULT)
        self._progress(job.id, len(table), int(table["reason"].notna().sum()))
        shutil.rmtree(folder / "store", ignore_errors=True)


def _no_job(name: str) -> Problem:
    return Problem(404, f"There is no job {name!r:.60}", "GET /v1/jobs lists yours.")


def _uploads(folder: Path, limit: int) -> Iterator[Upload]:
    """The files of a job, one in memory at a time."""
    for number, about in enumerate(json.loads((folder / "uploads.json").read_text(encoding="utf-8"))):
        data = (folder / f"upload-{number:06d}").read_bytes()
        yield Upload(about["name"], data, about["label"], limit)


def _with_given(rows: FeatureRows, energies: Mapping[str, float]) -> FeatureRows:
    """Rows with the energies that came with the job; those without one, or one that cannot be right, have a reason."""
    values = np.array([energies.get(str(name), np.nan) for name in rows.table["id"]])
    reasons = np.full(len(values), None, dtype=object)
    reasons[np.isnan(values)] = NO_ENERGY
    return with_energies(rows, values, reasons, check=True)


class _Lined:
    """A backbone whose forward waits in the line of the worker."""

    def __init__(self, inner: Any, worker: Worker, head: str, ends: threading.Event) -> None:
        self._inner, self._worker, self._head, self._ends = inner, worker, head, ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def extract(
        self, crystals: Sequence[Crystal], kind: FeatureKind = "readout", *, atoms: bool = False
    ) -> FeatureBlock:
        """:meth:`Backbone.extract`, each piece in its turn."""
        blocks = list[FeatureBlock]()
        for piece in pieces(crystals, lambda crystal: len(crystal.numbers)) if crystals else [[]]:
            if self._ends.is_set():
                raise Ending
            call = partial(self._inner.extract, piece, kind, atoms=atoms)
            try:
                blocks.append(self._worker.submit(Task(self._head, [], 0.0, call=call)).result())
            except Problem:  # it takes nothing more: the service ends
                raise Ending from None
        return _joined(blocks)


def _joined(blocks: Sequence[FeatureBlock]) -> FeatureBlock:
    """Blocks as one."""
    single = [block.atoms for block in blocks if block.atoms is not None]
    reasons = [block.reasons or (None,) * len(block.energy_ev) for block in blocks]
    return FeatureBlock(
        np.concatenate([block.features for block in blocks]),
        np.concatenate([block.fixed_energy_ev for block in blocks]),
        np.concatenate([block.energy_ev for block in blocks]),
        np.concatenate(single) if single else None,
        tuple(reason for some in reasons for reason in some),
    )
