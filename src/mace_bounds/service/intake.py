"""From the body of a request to records: files and JSON, within limits; nothing in it names a path."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile

from mace_bounds.service.energies import LISTED, split_json
from mace_bounds.service.problems import Problem
from mace_bounds.structures import Record, Upload

if TYPE_CHECKING:
    from fastapi import Request

    from mace_bounds.service.config import ServiceConfig

_HOW = "Send files as multipart/form-data (curl -F files=@NaCl.cif), or a JSON body of pymatgen or ASE structures."
JSON_NAME, JSON_LABEL = "structures.json", "structure"
MOST_FILES = 10_000


async def uploads_of(
    request: Request, config: ServiceConfig, *, many: bool = False
) -> list[tuple[str, Upload]]:
    """Files of a request with their fields, in memory; ``many`` for a job: not only ``config.max_structures``.

    Raises
    ------
    Problem
        415 for another type of content, 422 where there is nothing.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = int(config.max_unpacked_bytes)
    if kind == "multipart/form-data":
        most = MOST_FILES if many else min(MOST_FILES, config.max_structures)
        uploads = []
        async with request.form(max_files=most, max_fields=most, max_part_size=int(config.max_bytes)) as form:
            for field, part in form.multi_items():
                if isinstance(part, UploadFile):
                    upload = Upload(part.filename or "", await part.read(), max_bytes=limit)
                else:
                    upload = Upload("pasted", part.encode("utf-8", "replace"), max_bytes=limit)
                uploads.append((field, upload))
    elif kind == "application/json" or kind.endswith("+json"):
        body, energies = split_json(await request.body())
        uploads = [("files", Upload(JSON_NAME, body, JSON_LABEL, limit))] if body else []
        if energies:
            uploads.append((LISTED, Upload(f"{LISTED}.json", energies)))
    else:
        raise Problem(415, f"The type of the content is {kind[:80] or 'not said'}", _HOW)
    if not uploads:
        raise Problem(422, "The request holds no structures", _HOW)
    return uploads


class Reading:
    """Reads uploads in a thread, and can be told to stop.

    Parameters
    ----------
    uploads : list of Upload
    config : ServiceConfig
        Limits, and how structures are read.
    """

    def __init__(self, uploads: list[Upload], config: ServiceConfig) -> None:
        self._uploads, self._config = uploads, config
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Nobody waits for the records any more."""
        self._stopped.set()

    def run(self) -> list[Record]:
        """Read all.

        Raises
        ------
        Problem
            413 if there are more structures or atoms than one request may have, or reading takes too long.
        """
        config, kept, n_atoms = self._config, list["Record"](), 0
        ends = time.monotonic() + config.max_seconds
        for record in config.extract.read(self._uploads):
            kept.append(record)
            n_atoms += 0 if record.crystal is None else len(record.crystal.numbers)
            if self._stopped.is_set():
                return []
            if len(kept) > config.max_structures:
                raise Problem(
                    413,
                    f"The request has more than {config.max_structures:,} structures",
                    "Send fewer at a time.",
                )
            if n_atoms > config.max_total_atoms:
                raise Problem(
                    413,
                    f"The structures of the request have more than {config.max_total_atoms:,} atoms",
                    "Send fewer at a time.",
                )
            if time.monotonic() > ends:
                raise Problem(
                    413,
                    f"The request could not be read within {config.max_seconds:g} s",
                    "Send fewer or smaller files at a time.",
                )
        return kept
