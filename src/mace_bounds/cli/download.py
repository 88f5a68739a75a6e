"""``mace-bounds download``: a subset of the Materials Project as a file of labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mace_bounds.cli import console
from mace_bounds.cli.options import JsonOption

if TYPE_CHECKING:
    from mace_bounds.materials_project import Download

QueryArgument = Annotated[
    str,
    typer.Argument(
        metavar="QUERY",
        help="mp:Li-Fe-P-O (system), mp:within=Li-Fe-O (and its subsystems), mp:elements=Li,Fe, mp:LiFePO4, "
        "mp:mp-149,mp-13 or mp:all; narrowed by ,hull=0.05 (eV/atom) and ,nsites=40.",
    ),
]
OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="File to write: NAME.jsonl.gz or NAME.jsonl.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="Else MP_API_KEY, else pymatgen's PMG_MAPI_KEY."),
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="Else MP_API_ENDPOINT, else the public one.")
]


def download(
    query: QueryArgument,
    out: OutArgument,
    api_key: KeyOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a Materials Project subset with its uncorrected PBE(+U) energies.

    The run can be stopped at any time; the same command finishes it. Structure and energy are of the same
    calculation; labels of any other kind stay in the file with the reason. Exit code 1 if no label is left.
    """
    from mace_bounds.materials_project import Connection
    from mace_bounds.materials_project import download as run

    with console.progress("documents", None) as update:
        result = run(
            query,
            out,
            Connection(api_key, endpoint),
            progress=lambda done, total: update(done, 0, total),
            note=console.note,
        )
    if as_json:
        console.write_json(result.summary)
    else:
        _print(result)
    if not result.summary["counts"]["labelled"]:
        raise typer.Exit(1)


def fetch_query(source: Any) -> None:
    """Download what a SOURCE queries at the Materials Project, with progress, so that reading finds it in the cache."""
    if isinstance(source, str) and source.startswith("mp:"):
        from mace_bounds.materials_project import cached

        with console.progress("documents", None) as update:
            cached(source, progress=lambda done, total: update(done, 0, total), note=console.note)


def _print(result: Download) -> None:
    summary, counts = result.summary, result.summary["counts"]
    console.say(
        f"{counts['structures']:,} structures, {counts['labelled']:,} with a label, of {summary['query']} in "
        f"{result.path}, Materials Project {summary['database_version']}"
        + ("." if result.fresh else ", downloaded before; delete the file to download it again.")
    )
    for refused in summary["label_refused"][:3]:
        console.note(f"{refused['id']}: {refused['reason']}")
    if counts["label_refused"] > 3:
        console.note(f"and {counts['label_refused'] - 3:,} more labels refused; see {result.summary_path}")
    if counts.get("not_found"):
        console.note(
            f"note: {counts['not_found']:,} ids were not found: {', '.join(summary['not_found'][:5])}, ..."
        )
    for flag, n in summary["flags"].items():
        console.note(f"note: {n:,} flagged {flag}")
    console.note(f"next: mace-bounds audit {result.path} REPORT, or mace-bounds features {result.path} STORE")
