"""A dry run on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_bounds.cli import console as _console

if TYPE_CHECKING:
    from mace_bounds.pipeline import Plan


def print_plan(plan: Plan) -> None:
    """Print what a build would fetch, take and need."""
    console = _console.out()
    console.print(f"[bold]Dry run[/bold]  [dim]nothing is written into {plan.out}[/dim]", soft_wrap=True)
    for source in plan.sources:
        about = "" if source.counted else "about "
        mean = source.atoms / max(source.structures, 1)
        console.print(
            f"{source.name}: {about}{source.structures:,} structures, {about}{source.labelled:,} with a label, "
            f"{mean:.1f} atoms each" + (f"; {_fetched(plan)[source.name]}" if source.look else ""),
            soft_wrap=True,
            markup=False,
        )
    weights = plan.weights
    size = f"{weights.size_bytes:,} bytes" if weights.size_bytes else "size not known"
    where = (
        f"here, {weights.path}"
        if weights.here
        else f"to be fetched by mace from {weights.url} into {weights.path}"
    )
    console.print(f"{weights.model}: {size}, {where}", soft_wrap=True, markup=False)
    view = _console.plain_table(
        "stage", "time here", "disk at OUT", "basis", right=("time here", "disk at OUT")
    )
    for stage in plan.stages:
        if stage.done:
            view.add_row(stage.stage, "done", "", f"[dim]{stage.basis}[/dim]")
        else:
            view.add_row(
                stage.stage,
                told_seconds(stage.seconds),
                told_bytes(stage.disk_bytes),
                f"[dim]{stage.basis}[/dim]",
            )
    console.print(view)
    console.print(
        f"Disk: {told_bytes(plan.needed_bytes)} needed, {told_bytes(plan.free_bytes)} free.", soft_wrap=True
    )
    if not plan.enough:
        console.print("[bold]There is not enough free disk at OUT.[/bold]")
    for text in plan.notes:
        _console.note(f"note: {text}")


def _fetched(plan: Plan) -> dict[str, str]:
    return {
        one.name: f"{one.look.documents:,} documents to fetch from version {one.look.database_version}"
        for one in plan.sources
        if one.look is not None
    }


def told_seconds(seconds: float | None) -> str:
    """Write a time with the precision of a guess."""
    if seconds is None:
        return "not known"
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1.0):.0f} s"


def told_bytes(size: int | None) -> str:
    """Write a size with the precision of a guess."""
    if size is None:
        return "not known"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size} B"
