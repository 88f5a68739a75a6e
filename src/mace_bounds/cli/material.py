"""``mace-bounds fit-material``: labelled frames of one chemistry to a potential with error bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds._io import summary_path, write_json
from mace_bounds.cli import console
from mace_bounds.cli.heads import OverwriteOption
from mace_bounds.cli.options import JsonOption, only, takes
from mace_bounds.cli.views import text_view
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import CardNotes, MaterialConfig, MaterialReport

FramesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FRAMES... HEAD",
        help="Extended XYZ files (also .gz) with energies, forces and stress of one chemistry; info['family'] or "
        "info['config_type'] names the family of a frame. Last the folder of the new head.",
    ),
]
BackboneOption = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|PATH", help="The frozen model; one of MACE's family.")
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="FOLDER",
        help="Where features and derivatives are kept, so that a run that was stopped goes on.",
        show_default="HEAD.work",
    ),
]


@takes(
    card=CardNotes, config=MaterialConfig, extract=only(ExtractSettings, "device", "dtype", "memory_bytes")
)
def fit_material(
    paths: FramesArgument,
    model: BackboneOption = "medium-mpa-0",
    work: WorkOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    *,
    card: CardNotes,
    config: MaterialConfig,
    extract: ExtractSettings,
) -> None:
    """Refit a model's readout to energies, forces and stress of one chemistry, with error bars.

    The head gives the refitted energy of structures of this chemistry with intervals, the envelope of all POPS
    corrections, and draws of its weights for properties.
    """
    from mace_bounds.fitting import fit_material as run
    from mace_bounds.fitting import read_frames
    from mace_bounds.head import check_head_target

    if len(paths) < 2:
        raise typer.BadParameter("name one or more files of frames, and last the folder of the new head")
    *files, head = paths
    check_head_target(head, overwrite=overwrite)
    frames = read_frames(files, shift_ev_per_atom=config.shift_ev_per_atom)
    backbone = extract.load(model)
    folder = head.with_name(f"{head.name}.work") if work is None else work
    with console.progress("frames", 2 * len(frames)) as update:
        report = run(
            frames,
            backbone,
            folder,
            config,
            progress=lambda what, done, _: update(done + (len(frames) if what == "forces" else 0), 0),
        )
    report = report.save(head, card, overwrite=overwrite)
    summary = _summary(report, files, head)
    write_json(summary_path(head), summary)
    if as_json:
        console.write_json(summary)
    else:
        _print(report, head)


def _summary(report: MaterialReport, files: list[Path], head: Path) -> dict[str, object]:
    about, identity, material = report.head.provenance, report.head.identity, report.head.material
    assert material is not None
    return {
        "command": "fit-material",
        "frames": [str(path) for path in files],
        "head": str(head),
        "chemistry": material.symbols,
        "reference": material.reference,
        "stretch": material.stretch,
        **{
            name: about[name]
            for name in (
                "settings",
                "versions",
                "rows",
                "row_scales",
                "families",
                "left_out_families",
                "coverage",
            )
        },
        "model": {"name": identity.model, "digest": identity.model_digest},
    }


def _print(report: MaterialReport, head: Path) -> None:
    from mace_bounds.bounds import energy_note
    from mace_bounds.fitting import families, families_left_out

    fitted = report.head
    rows = ", ".join(f"{n:,} {name}" for name, n in fitted.provenance["rows"].items())
    console.say((str(head), "bold"), (f"  {fitted!r}: {rows}", "dim"), wrap=True)
    console.show(text_view(families(fitted), "On frames that took no part"))
    console.show(text_view(families_left_out(fitted), "Families left out of the fit"))
    console.say((energy_note(fitted), "dim"), wrap=True)
    console.say((f"Use it: mace-bounds score FILE --head {head}", "dim"))
