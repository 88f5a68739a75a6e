"""``mace-bounds audit`` and ``plot``: bounds for a database, measured coverage, violations, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.auditing import AuditConfig
from mace_bounds.cli import console
from mace_bounds.cli.download import fetch_query
from mace_bounds.cli.options import BoundsOptions, JsonOption, from_text, only, takes, without
from mace_bounds.cli.views import print_audit
from mace_bounds.levels import parse_level

AuditSourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A file, a folder, a glob, - for standard input, mp:QUERY, or a feature store."
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for bounds, plots and report.")]
AuditArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of an audit.")]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option("--format", "-f", help="png, svg or pdf; may be repeated.", show_default="png and svg"),
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Where they go.", show_default="OUT/plots"),
]
GroupLevelOption = Annotated[
    float | None,
    typer.Option(
        "--level",
        "-l",
        metavar="LEVEL",
        help="Level of the plots by group.",
        parser=from_text(parse_level),
        show_default="the audit's",
    ),
]


@takes(
    options=only(BoundsOptions, "model", "head"),
    config=without(AuditConfig, "kind", "atoms", "symmetry", "part"),
)
def audit(
    source: AuditSourceArgument,
    out: OutArgument,
    as_json: JsonOption = False,
    *,
    options: BoundsOptions,
    config: AuditConfig,
) -> None:
    """Bound every structure of a source and measure coverage where it has labels.

    Coverage is measured on compositions that neither the model's training nor the head has used (for a head made with
    --include-training: that the head has not used), where there are enough of them; the output says which.
    """
    from mace_bounds.auditing import audit as run

    fetch_query(source)
    with console.progress("structures", None) as update:

        def progress(stage: str, done: int, failed: int, total: int | None) -> None:
            if stage == "features":
                update(done, failed)
            else:
                console.note(f"{done} of {total} heads")

        result = run(source, out, model=options.model, head=options.head, config=config, progress=progress)
    if as_json:
        console.write_json(result.summary)
    else:
        print_audit(result)


def plot(
    out: AuditArgument,
    formats: FormatsOption = None,
    folder: FolderOption = None,
    level: GroupLevelOption = None,
) -> None:
    """Draw the plots of an audit again.

    One file for each plot and format: calibration (one column wide, as for a paper), coverage_by_*, map_coverage and
    map_bias (periodic tables), reliability, error_against_width, parity, residuals and widths. PNG has 300 dpi; pdf and
    svg are vector graphics. An audit without labels has widths alone.
    """
    from mace_bounds.auditing import plot as run

    for path in run(out, level=level, formats=list(formats or ("png", "svg")), folder=folder):
        console.say(str(path))
