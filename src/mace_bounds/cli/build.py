"""``mace-bounds build``: the whole path to a head for one model, in one command that can be stopped at any time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from mace_bounds.cli import console
from mace_bounds.cli.options import JsonOption, takes, without
from mace_bounds.cli.views import print_build, print_plan
from mace_bounds.pipeline import BuildConfig

OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder for downloads, features, head and report.")
]
InstallOption = Annotated[
    str | None,
    typer.Option(
        "--install", metavar="NAME", help="Copy the head to your own heads, where score and audit find it."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be fetched and how much disk is needed.")
]


@takes(config=without(BuildConfig, "kind", "atoms", "symmetry", "part"))
def build(
    out: OutArgument,
    install: InstallOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    *,
    config: BuildConfig,
) -> None:
    """Build a head for a model: download, features, fit and audit in one command.

    The run can be stopped at any time; the same command continues it, and stages that are done are not done again.
    """
    if dry_run:
        from mace_bounds.pipeline import plan

        planned = plan(out, config, note=console.note)
        if as_json:
            console.write_json(planned.as_dict())
        else:
            print_plan(planned)
            for text in planned.notes:
                console.note(f"note: {text}")
        return
    from mace_bounds.bounds import install_head
    from mace_bounds.pipeline import build as run

    with _Stages() as stages:
        result = run(out, config, progress=stages.update, note=console.note)
    installed = install_head(result.head, install) if install and result.head else None
    if install and installed is None:
        console.note(
            f"note: there is no head before the fit; add --install {install} to the command that fits it"
        )
    if as_json:
        values = {"folder": str(result.folder), "training": result.training, "stages": result.stages}
        console.write_json({**values, "installed": str(installed) if installed else None})
        return
    print_build(result, config.model, installed)
    if result.head is None:
        console.note("next: the same command without --until")
        if config.until == "download":
            _note_arrays(result.stages["download"]["made"]["sources"], config.model)


class _Stages:
    """Progress of one stage after another, each with its own bar."""

    def __init__(self) -> None:
        self._stack, self._stage = ExitStack(), ""
        self._update: console.Update | None = None

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, stage: str, done: int, failed: int, total: int | None) -> None:
        """Show how far a stage is."""
        if stage != self._stage:
            self._stack.close()
            what = {"download": "documents", "fit": "heads", "audit": "heads"}.get(stage, "structures")
            self._stage = stage
            self._update = self._stack.enter_context(console.progress(f"{what} ({stage})", total))
        if self._update is not None:
            self._update(done, failed, total)


def _note_arrays(sources: list[dict[str, Any]], model: str) -> None:
    """Show how an array of jobs extracts the features of sources that are here."""
    for source in sources:
        if source["kind"] != "store":
            console.note(
                f"or first, as an array of jobs: sbatch --array=1-8 scripts/slurm_features.sh {source['path']} "
                f"{source['features']} --atoms --symmetry --model {model}"
            )
    console.note("(with the same --dtype, --max-atoms, --energy-key and --shard-rows where these were given)")
