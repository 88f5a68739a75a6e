"""A service of mace-bounds, asked from Python: the rows of :func:`mace_bounds.score` without a model on this machine.

It needs httpx (``pip install "mace-bounds[client]"``) and imports neither torch nor mace.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mace_bounds.errors import ServiceError, SourceError
from mace_bounds.structures import Source, source_files
from mace_bounds.tables import typed

if TYPE_CHECKING:
    import httpx
    import pandas as pd

MISSING = 'asking a service needs httpx, which is not installed; run pip install "mace-bounds[client]".'
_BUSY = 503
_LATER = 1.5
_AT_ONCE = 200  # structures of a request, as far as they come as files or objects of their own
_SHARE = 0.8  # of the bytes that a request may have, for the files in it


class Client:
    """A service, by its address.

    Parameters
    ----------
    url : str
        ``"http://127.0.0.1:8642"``.
    key : str, optional
        An API key; by default the environment variable ``MACE_BOUNDS_KEY``.
    timeout_s : float
        For one answer.
    patience_s : float
        How long a busy service is asked again, as it says itself.
    transport : httpx.BaseTransport, optional
        Another way to the service than the network.

    Examples
    --------
    >>> from mace_bounds.client import Client
    >>> client = Client("http://127.0.0.1:8642")  # doctest: +SKIP
    >>> table = client.score("NaCl.cif", level=0.9)  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 120.0,
        patience_s: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise ServiceError(MISSING) from None
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"{url!r} is no address of a service; write http://HOST:PORT.")
        key = os.environ.get("MACE_BOUNDS_KEY") if key is None else key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.url = url.rstrip("/")
        self._patience_s = patience_s
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=transport)
        self._limits: dict[str, float] | None = None

    def score(
        self, structures: Source, *, level: float | None = None, head: str | None = None
    ) -> pd.DataFrame:
        """Bound the DFT energy of each structure, as :func:`mace_bounds.score` does.

        Parameters
        ----------
        structures : path, str, object or iterable
            Files, folders, patterns, ``Structure``, ``Atoms``, ``ComputedStructureEntry``, dictionaries, or several.
        level : float, optional
            Nominal coverage; 0.95.
        head : str, optional
            One of :meth:`heads`; the service's first.

        Returns
        -------
        DataFrame
            One row for each structure; those that cannot be scored have a ``reason``. Large sources are sent in several
            requests, so that ids are unique within each.

        Raises
        ------
        ServiceError
            With the sentence and remedy of the service, or if it does not answer.
        SourceError
            If ``structures`` names nothing.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for options in self._bodies(structures):
            rows += self._rows("/v1/score", _given(level=level, head=head), options)
        return typed(pd.DataFrame(rows))

    def explain(
        self, structure: Source, *, level: float | None = None, head: str | None = None, n_neighbours: int = 5
    ) -> dict[str, Any]:
        """Say why the bounds of one structure are as wide as they are, as ``mace-bounds explain --format json``."""
        bodies = list(self._bodies(structure))
        if len(bodies) != 1:
            raise ServiceError("explain takes one structure, and these are more; give one of them.")
        given = _given(level=level, head=head, neighbours=n_neighbours)
        answer: dict[str, Any] = self._ask("POST", "/v1/explain", params=given, **bodies[0]).json()
        return answer

    def heads(self) -> list[dict[str, Any]]:
        """Cards of the heads that may be named."""
        cards: list[dict[str, Any]] = self._ask("GET", "/v1/heads").json()
        return cards

    def models(self) -> list[dict[str, Any]]:
        """The models that are served."""
        models: list[dict[str, Any]] = self._ask("GET", "/v1/models").json()
        return models

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _rows(self, path: str, given: dict[str, str], options: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of an answer; those of one that says why none could be scored are rows too."""
        answer = self._ask("POST", path, params=given, allow_rows=True, **options).json()
        rows: list[dict[str, Any]] = answer["rows"] if isinstance(answer, dict) else answer
        return rows

    def _bodies(self, structures: Source) -> Iterator[dict[str, Any]]:
        """Requests for a source: files as they are, objects as JSON, each within the limits of the service."""
        if self._limits is None:
            self._limits = self._ask("GET", "/v1/limits").json()
        most = _SHARE * float(self._limits["bytes"])
        kind, parts, size = "", list[Any](), 0
        for next_kind, part, weight in _parts(structures):
            full = size + weight > most or len(parts) >= min(_AT_ONCE, self._limits["structures"])
            if parts and (full or kind != next_kind):
                yield {kind: parts}
                parts, size = [], 0
            kind = next_kind
            parts.append(part)
            size += weight
        if not parts:
            raise SourceError("the list of structures is empty; name a file or an object.")
        yield {kind: parts}

    def _ask(self, method: str, path: str, *, allow_rows: bool = False, **options: Any) -> httpx.Response:
        import httpx

        ends = time.monotonic() + self._patience_s
        while True:
            try:
                answer = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                raise ServiceError(
                    f"{self.url} does not answer ({error or type(error).__name__}); check the address, and that "
                    "mace-bounds serve is running there."
                ) from None
            wait = answer.headers.get("retry-after", "")
            if answer.status_code in (_BUSY, 429) and wait.isdecimal():
                # later than it says by a random share, so that those who were refused together do not come together
                seconds = int(wait) * random.uniform(1, _LATER)
                if time.monotonic() + seconds < ends:
                    time.sleep(seconds)
                    continue
            if answer.is_success:
                return answer
            said = _said(answer)
            if allow_rows and said.get("rows"):
                return answer
            error_said = said.get("error", {})
            sentence = str(error_said.get("sentence", f"{self.url} answered {answer.status_code}")).rstrip(
                "."
            )
            raise ServiceError(f"{sentence}; {error_said.get('remedy') or 'check the request.'}")


def _parts(structures: Any) -> Iterator[tuple[str, Any, int]]:
    """Kind of content, the content and its bytes, of every file and object of a source."""
    several = hasattr(structures, "__iter__") and not (
        isinstance(structures, (str, os.PathLike, Mapping))
        or hasattr(structures, "get_chemical_symbols")
        or hasattr(structures, "lattice")
    )
    for item in structures if several else [structures]:
        if isinstance(item, (str, os.PathLike)):
            for path, _ in source_files([item]):
                content = _content(path)
                yield "files", ("files", (path.name, content)), len(content)
        else:
            plain = _plain(item)
            yield "json", plain, len(json.dumps(plain))


def _said(answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _given(**parameters: Any) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value is not None}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check it.") from None


def _plain(item: Any) -> dict[str, Any]:
    """An object as JSON: as pymatgen writes it, ase objects with their cell and positions."""
    if isinstance(item, Mapping):
        return dict(item)
    if hasattr(item, "get_chemical_symbols"):
        return {
            "numbers": item.numbers.tolist(),
            "positions": item.positions.tolist(),
            "cell": item.cell.array.tolist(),
            "pbc": [bool(periodic) for periodic in item.pbc],
            "key_value_pairs": {k: v for k, v in item.info.items() if isinstance(v, (str, int, float, bool))},
        }
    if hasattr(item, "as_dict"):
        plain: dict[str, Any] = json.loads(json.dumps(item.as_dict(), default=str))
        return plain
    raise SourceError(
        f"an object of type {type(item).__name__} cannot be sent; give a path, Structure, Atoms or a dictionary."
    )
