"""What a service is started with: its model and heads, where it listens, and what one request may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from mace_bounds.errors import ServiceError
from mace_bounds.features import ExtractSettings, parse_memory
from mace_bounds.settings import check_settings, setting

_LOCAL_NAMES = ("localhost",)


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of a service; the command line makes its options from the fields.

    Attributes
    ----------
    model : str or None
        The frozen model, a name or a path; None for the heads' own.
    heads : tuple of str
        Names or folders of the heads that requests may name, the first where they name none; empty for the first
        that fits the model.
    host, port : str, int
        Where it listens.
    keys : path or None
        File of API keys (:mod:`mace_bounds.service.keys`); needed where others than this machine can connect.
    processes : int
        Processes behind the one port; each has its own model, queue and cache.
    max_bytes, max_unpacked_bytes : float
        Of a request's body, and of each of its files when it is unpacked.
    max_structures, max_total_atoms : int
        In one request; what one structure may have is in ``extract``.
    max_seconds : float
        For a request to arrive, to be read, and to be answered.
    max_slowdown : float
        Requests that would wait so many times as long as a small one alone takes are answered 503
        (:class:`mace_bounds.service.pace.Pace`).
    queue : int
        Requests that may be under way at once, however fast they are; more are answered 503.
    window_ms : float
        How long a structure waits for others that are on their way, to go through the model with it; what goes together
        differs from what goes alone by round-off. 0: all go alone.
    cache_bytes : float
        Memory for the features of structures that were scored, as they came out beside others; 0 for none.
    keep_hours, kept_bytes : float
        For how long answers can be fetched again by their links, and the bytes that they may take on the disk.
    rate_per_minute : int
        Requests that one API key may make, of all processes together; 0 for no limit.
    state : path or None
        Folder in which jobs are kept (:mod:`mace_bounds.service.jobs`).
    max_job_bytes : float
        Of the body of a request that makes a job.
    max_jobs : int
        That may wait or run at a time.
    job_days : float
        For which the bounds of a job are kept.
    scratch : path or None
        Folder that the processes of one service share while they run; :func:`mace_bounds.service.serve` makes it.
    extract : ExtractSettings
        Of these ``max_atoms``, ``device``, ``dtype``, ``memory_bytes`` and ``energy_key`` are used.
    """

    model: str | None = setting(
        None,
        "The frozen model: mini (ships with the package), a name that mace knows, or a path.",
        metavar="NAME|PATH",
        shown="the head's model, else medium-mpa-0",
        option="--model -m",
    )
    heads: tuple[str, ...] = setting(
        (),
        "A calibrated head that requests may name; give it several times for several. The first is the default.",
        metavar="NAME|PATH",
        shown="the first that fits the model",
        option="--head",
    )
    host: str = setting("127.0.0.1", "Address to listen on; others than this machine's need --keys.")
    port: int = setting(8642, "Port to listen on.", minimum=0, maximum=65535)
    keys: Path | None = setting(
        None, "File of API keys; without it only this machine can connect.", metavar="FILE"
    )
    processes: int = setting(
        1,
        "Processes behind the port, each with its own model.",
        minimum=1,
        maximum=256,
        metavar="N",
        option="--workers",
    )
    max_bytes: float = setting(
        10 * 2**20,
        "Largest request: MB, or with a unit.",
        metavar="SIZE",
        shown="10MB",
        parser=parse_memory,
        minimum=1,
        maximum=2**50,
    )
    max_unpacked_bytes: float = setting(
        50 * 2**20,
        "Largest file when it is unpacked: MB, or with a unit.",
        metavar="SIZE",
        shown="50MB",
        parser=parse_memory,
        option="--max-unpacked",
        minimum=1,
        maximum=2**50,
    )
    max_structures: int = setting(1000, "Most structures in a request.", minimum=1, maximum=1_000_000)
    max_total_atoms: int = setting(
        20_000, "Most atoms in all structures of a request.", minimum=1, maximum=100_000_000
    )
    max_seconds: float = setting(
        30.0, "Most time for a request.", minimum=0.1, maximum=3600.0, metavar="SECONDS"
    )
    max_slowdown: float = setting(
        3.0,
        "Refuse requests (503, Retry-After) that would wait this many times as long as a small one alone takes.",
        minimum=1.0,
        maximum=1e6,
        metavar="TIMES",
    )
    queue: int = setting(
        64, "Requests that may be under way, however fast they are.", minimum=1, maximum=100_000
    )
    window_ms: float = setting(
        15.0,
        "How long structures wait for others to go through the model with them, ms; 0: all go alone.",
        minimum=0.0,
        maximum=1000.0,
        option="--window",
    )
    cache_bytes: float = setting(
        64 * 2**20, "Memory for features of structures.", option=False, minimum=0, maximum=2**50
    )
    keep_hours: float = setting(
        24.0,
        "Hours for which an answer can be fetched by its link; 0 for none.",
        minimum=0.0,
        maximum=100_000.0,
        metavar="HOURS",
        option="--keep",
    )
    kept_bytes: float = setting(
        64 * 2**20, "Bytes for these answers.", option=False, minimum=0, maximum=2**50
    )
    rate_per_minute: int = setting(
        600,
        "Requests a minute that one API key may make; 0 for no limit.",
        minimum=0,
        maximum=10**9,
        option="--rate",
    )
    state: Path | None = setting(
        None, "Folder in which jobs are kept; without it there are none.", metavar="FOLDER"
    )
    max_job_bytes: float = setting(
        512 * 2**20,
        "Largest request that makes a job: MB, or with a unit.",
        metavar="SIZE",
        shown="512MB",
        parser=parse_memory,
        minimum=1,
        maximum=2**50,
    )
    max_jobs: int = setting(100, "Jobs that may wait or run.", minimum=1, maximum=1_000_000)
    job_days: float = setting(
        7.0, "Days for which the bounds of a job are kept.", minimum=0.0, maximum=10_000.0, metavar="DAYS"
    )
    scratch: Path | None = setting(None, "Folder that the processes share while they run.", option=False)
    extract: ExtractSettings = field(default_factory=ExtractSettings)

    def __post_init__(self) -> None:
        check_settings(self, ServiceError)
        if not self.local and self.keys is None:
            raise ServiceError(
                f"{self.host} can be reached from other machines, and there are no API keys; make one (mace-bounds "
                "serve --keys FILE --new-key NAME) and pass --keys FILE, or listen on 127.0.0.1."
            )

    def shared_folder(self, name: str) -> Path | None:
        """A folder of all processes: kept with the jobs, else while the service runs; None where there is none."""
        parent = self.state or self.scratch
        return None if parent is None else parent / name

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host in _LOCAL_NAMES:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
