"""What results look like on the screen: cards, tables and the sentences around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mace_bounds.cli import console
from mace_bounds.columns import FLAGS, flag_names, records
from mace_bounds.levels import TOLERANCE, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd
    from rich.table import Table

    from mace_bounds.auditing import AuditResult
    from mace_bounds.benchmark import CompareReport
    from mace_bounds.bounds import HeadCard
    from mace_bounds.calibration import CalibratedHead
    from mace_bounds.fitting import FitReport
    from mace_bounds.pipeline import BuildResult, Plan

MAX_GROUPS = 16
"""Groups that a table of coverage shows, those of lowest coverage first."""
SHOWN_LEVEL = 0.95


def print_bounds(table: pd.DataFrame, head: CalibratedHead, level: float) -> None:
    """Print bounds: a card for one structure, a table for several; failures are left to standard error."""
    good = table[table["reason"].isna()]
    if len(good) == 0:
        return
    if len(table) == 1:
        _print_card(records(good)[0], level)
    else:
        console.out().print(_bounds_view(good, level))
    identity, screen = head.identity, console.out()
    screen.print(
        f"[dim]Model {identity.model} ({identity.model_digest[:12]}), head {head.name}. The bounds hold E_DFT, as the "
        f"head's labels define it,\nfor {percent(level)} % of structures like those it was calibrated on. "
        f"{_measured_sentence(head, level)}[/dim]",
        soft_wrap=True,
    )
    print_flags(good["flags"])


def print_flags(flags: Iterable[Any]) -> None:
    """Explain each flag that occurs in a column ``flags``."""
    for flag in sorted({name for text in flags for name in flag_names(text)}):
        meaning = FLAGS[flag].meaning
        console.out().print(f"[yellow]{flag}[/yellow][dim]: {meaning}[/dim]", soft_wrap=True)


def _measured_sentence(head: CalibratedHead, level: float) -> str:
    from mace_bounds.fitting import TrainingExposure

    for row in head.provenance.get("coverage", []):
        if abs(float(row["level"]) - level) < TOLERANCE:
            exposure = TrainingExposure.of_head(head.provenance).clause()
            return (
                f"Measured: {100 * row['coverage']:.1f} % of {row['n']:,} structures with compositions that the head "
                f"has not used{exposure}."
            )
    return ""


def _print_card(row: dict[str, Any], level: float) -> None:
    from rich.table import Table

    screen, n_atoms = console.out(), int(row["n_atoms"])
    screen.print(f"[bold]{row['formula']}[/bold]  [dim]{row['id']}, {n_atoms} atoms[/dim]")
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    grid.add_column(style="dim")
    energy, low, high = row["energy_model_ev"], row["energy_lower_ev"], row["energy_upper_ev"]
    grid.add_row("E_model", f"{energy:.4f} eV", f"{energy / n_atoms:.4f} eV/atom")
    grid.add_row(
        f"E_DFT, {percent(level)} % bounds",
        f"[bold]{low:.4f} to {high:.4f} eV[/bold]",
        f"{low / n_atoms:.4f} to {high / n_atoms:.4f} eV/atom",
    )
    grid.add_row("E_DFT − E_model", f"[bold]{_interval(row)} meV/atom[/bold]", "lower to upper bound")
    grid.add_row(
        "expected error",
        f"{row['expected_error_mev_per_atom']:+.1f} meV/atom",
        "best guess of E_DFT − E_MACE",
    )
    if row["energy_dft_ev"] is not None:
        where = "inside" if row["inside"] else "[red]outside[/red]"
        grid.add_row(
            "label", f"{row['energy_dft_ev']:.4f} eV", f"{row['error_mev_per_atom']:+.1f} meV/atom, {where}"
        )
    grid.add_row("flags", _flags(row) or "none", "")
    screen.print(grid)


def _bounds_view(table: pd.DataFrame, level: float) -> Table:
    labelled = bool(table["energy_dft_ev"].notna().any())
    columns = [
        "id",
        "formula",
        "atoms",
        "E_model (eV)",
        f"E_DFT, {percent(level)} % (eV)",
        "error bounds (meV/atom)",
    ]
    columns += ["error"] * labelled + ["flags"]
    view = console.plain_table(*columns, right=[*columns[2:6], "error"])
    for column in view.columns[1:-1]:
        column.no_wrap = True
    for row in records(table):
        cells = [
            str(row["id"]),
            str(row["formula"]),
            f"{int(row['n_atoms'])}",
            f"{row['energy_model_ev']:.3f}",
            f"{row['energy_lower_ev']:.3f} to {row['energy_upper_ev']:.3f}",
            _interval(row),
        ]
        view.add_row(*cells, *([_error(row)] if labelled else []), _flags(row))
    return view


def _error(row: dict[str, Any]) -> str:
    error = row["error_mev_per_atom"]
    if error is None:
        return ""
    return f"{error:+.0f}" if row["inside"] else f"[red]{error:+.0f}[/red]"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['lower_mev_per_atom']:+.0f} to {row['upper_mev_per_atom']:+.0f}"


def _flags(row: dict[str, Any]) -> str:
    names = flag_names(row["flags"])
    return f"[yellow]{', '.join(names)}[/yellow]" if names else ""


def coverage_view(rows: Sequence[dict[str, float]], title: str) -> Table:
    """Overall coverage at each level, with confidence interval, count and widths."""
    columns = ("level", "covered", "95 % confidence", "n", "median width (meV/atom)")
    view = console.plain_table(*columns, right=columns, title=title)
    for row in rows:
        view.add_row(
            f"{percent(row['level'])} %",
            _share(row),
            f"{100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f} %",
            f"{row['n']:,}",
            f"{row['median_width_mev_per_atom']:.0f}",
        )
    return view


def groups_view(coverage: pd.DataFrame, level: float, by: Sequence[str]) -> Table | None:
    """Coverage of groups at one level, lowest first; None where there are no groups."""
    picked = coverage[((coverage["level"] - level).abs() < TOLERANCE) & coverage["by"].isin(list(by))]
    if len(picked) == 0:
        return None
    columns = ("group", f"covered at {percent(level)} %", "95 % confidence", "n")
    view = console.plain_table(*columns, right=columns[1:])
    for row in records(picked.sort_values(["coverage", "n"], kind="stable").head(MAX_GROUPS)):
        view.add_row(
            f"{row['by']}: {row['group']}".replace("_", " "),
            _share(row),
            f"{100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f} %",
            f"{row['n']:,}",
        )
    return view


def _share(row: dict[str, float]) -> str:
    text = f"{100 * row['coverage']:.1f} %"
    return f"[red]{text}[/red]" if row["coverage_high"] < row["level"] else f"[bold]{text}[/bold]"


def _print_groups(coverage: pd.DataFrame, level: float) -> None:
    groups = groups_view(coverage, level, ("source", "chemistry"))
    if groups is not None:
        console.out().print(groups)


def print_fit(report: FitReport, head: Path) -> None:
    """Print a fitted head: its rows, its coverage over splits and by group, its centre and scale."""
    from mace_bounds.fitting import UNSEEN, TrainingExposure

    screen, about = console.out(), report.head.provenance
    rows = ", ".join(f"{n:,} {name}" for name, n in report.splits.items() if n)
    screen.print(f"[bold]{head}[/bold]  [dim]head for {report.head.identity.model}: {rows}[/dim]")
    for reason, n in report.left_out.items():
        screen.print(f"[dim]left out: {n:,} ({reason})[/dim]")
    exposure = TrainingExposure.of_head(about)
    new_to_all = exposure.evaluation_subset == UNSEEN
    title = "unseen compositions" if new_to_all else "compositions not used by the head"
    screen.print(coverage_view(about["coverage"], f"Coverage on {title}"))
    if warning := exposure.warning(report.head.identity.model):
        screen.print(f"[dim]{warning}[/dim]", soft_wrap=True)
    n_splits = int(report.repeats["n_splits"].iloc[0]) if len(report.repeats) else 0
    if n_splits > 1:
        numbers = ("level", "mean", "± over splits", "lowest", "highest")
        view = console.plain_table(*numbers, right=numbers, title=f"Over {n_splits} splits")
        for row in records(report.repeats):
            shares = (row[name] for name in ("level", "mean", "std", "minimum", "maximum"))
            view.add_row(*(f"{100 * share:.1f} %" for share in shares))
        screen.print(view)
    levels = list(report.head.levels)
    _print_groups(report.coverage, SHOWN_LEVEL if SHOWN_LEVEL in levels else levels[-1])
    centre = report.head.centre.describe()
    screen.print(f"[dim]Centred on {centre}; scale {report.head.scale.kind}.[/dim]", soft_wrap=True)
    screen.print(f"[dim]Use it: mace-bounds score FILE --head {head}[/dim]", soft_wrap=True)


def heads_view(cards: Sequence[HeadCard]) -> Table:
    """Installed heads and their measured coverage."""
    view = console.plain_table(
        "head", "model", "weights", "rows", "measured coverage", "folder", right=["rows"]
    )
    for card in cards:
        covered = ", ".join(
            f"{percent(float(level))} %: {100 * share:.1f}" for level, share in card.coverage.items()
        )
        where = "shipped" if card.shipped else str(card.path)
        rows = f"{sum(card.rows.values()):,}"
        view.add_row(card.name, card.model, card.model_digest[:12], rows, covered, where)
    return view


def models_view(rows: Sequence[dict[str, Any]]) -> Table:
    """Models that can be named, whether they are here, and their heads."""
    view = console.plain_table("model", "where", "heads", "what it is")
    for row in rows:
        where = "[green]here[/green]" if row["here"] else "[dim]downloaded on first use[/dim]"
        heads = ", ".join(row["heads"]) or "[dim]none yet[/dim]"
        view.add_row(f"[bold]{row['name']}[/bold]", where, heads, f"[dim]{row['description']}[/dim]")
    return view


def print_audit(result: AuditResult) -> None:
    """Print an audit: what was bounded, the coverage, suspects, and where the report is."""
    screen, summary = console.out(), result.summary
    counts, level, published = summary["counts"], summary["settings"]["level"], summary["published"]
    name = str(summary["model"]["name"])
    if published:
        name = f"{published['column']} (published energies; features of {name})"
    screen.print(
        f"[bold]{counts['scored']:,} structures[/bold] bounded by {name} with the head {summary['head']['name']}"
        + (f", {counts['failed']:,} could not be scored" if counts["failed"] else "")
        + (f", {counts['suspect_labels']:,} suspect labels left out" if counts["suspect_labels"] else "")
        + ".",
        soft_wrap=True,
    )
    measured = summary["measured_on"]
    if measured["n"]:
        screen.print(coverage_view(summary["coverage"], "Measured coverage"))
        screen.print(f"[dim]on {measured['sentence']}.[/dim]", soft_wrap=True)
        if result.coverage is not None:
            _print_groups(result.coverage[result.coverage["rows"] == measured["rows"]], level)
    else:
        screen.print(f"[dim]Coverage is not measured: {measured['sentence']}.[/dim]")
    if summary["suspects"]["n"]:
        n_labels = summary["suspects"].get("label", 0)
        screen.print(
            f"{summary['suspects']['n']:,} suspect entries in suspects.csv, {n_labels:,} of them rather by their label "
            "than by the model."
        )
    for row in summary["failures"][:3]:
        screen.print(f"[dim]{row['n']:,} not scored: {row['reason']}[/dim]", soft_wrap=True, markup=True)
    if (folder := summary["head"].get("folder")) and not published:
        screen.print(
            f"Head of all its labels: mace-bounds score FILE --head {result.folder / folder}", soft_wrap=True
        )
    names = [name for name in summary["files"] if "/" not in name and name != result.report.name]
    screen.print(f"[bold]{result.report}[/bold]", soft_wrap=True)
    screen.print(f"[dim]beside it {', '.join(names)}, plots/[/dim]", soft_wrap=True)


def print_build(result: BuildResult, model: str, installed: Path | None) -> None:
    """Print a build: its features, the head and its coverage, and how to use it."""
    screen, out = console.out(), result.folder
    for name, stage in result.stages.items():
        if name.startswith("features"):
            made = stage["made"]
            failed = f", {made['failed']:,} with a reason instead" if made["failed"] else ""
            rows = made["rows"] - made["failed"]
            screen.print(f"[dim]{rows:,} structures in {out / made['folder']}{failed}[/dim]", soft_wrap=True)
    if result.head is None:
        return
    made = result.stages["fit"]["made"]
    rows = ", ".join(f"{n:,} {name}" for name, n in made["rows"].items() if n)
    screen.print(f"[bold]{result.head}[/bold]  [dim]head for {model}: {rows}[/dim]", soft_wrap=True)
    screen.print(coverage_view(made["coverage"], "Coverage on compositions that the head has not used"))
    style = "dim" if made["new_to_model"] else "bold"
    screen.print(result.training, style=style, soft_wrap=True, markup=False)
    if result.report is not None:
        screen.print(f"[bold]{result.report}[/bold]", soft_wrap=True)
    if installed is not None:
        screen.print(f"Installed as {installed}: mace-bounds score FILE --model {model}", soft_wrap=True)
    else:
        screen.print(
            f"[dim]Use it: mace-bounds score FILE --model {model} --head {result.head} (or --install NAME)[/dim]",
            soft_wrap=True,
        )


def print_plan(plan: Plan) -> None:
    """Print what a build would fetch and how much disk it needs."""
    screen = console.out()
    screen.print(f"[bold]Dry run[/bold]  [dim]nothing is written into {plan.out}[/dim]", soft_wrap=True)
    for source in plan.sources:
        about = "" if source.counted else "about "
        text = (
            f"{source.name}: {about}{source.structures:,} structures, {about}{source.labelled:,} with a label, "
            f"{source.atoms / max(source.structures, 1):.1f} atoms each"
        )
        if source.preview is not None:
            text += f"; {source.preview.documents:,} documents to fetch from version {source.preview.database_version}"
        screen.print(text, soft_wrap=True, markup=False)
    weights = plan.weights
    size = f"{weights.size_bytes:,} bytes" if weights.size_bytes else "size not known"
    where = (
        f"here, {weights.path}" if weights.here else f"mace fetches it from {weights.url} into {weights.path}"
    )
    screen.print(f"{weights.model}: {size}, {where}", soft_wrap=True, markup=False)
    view = console.plain_table("stage", "disk in OUT", "basis", right=("disk in OUT",))
    for stage in plan.stages:
        disk = "done" if stage.done else size_text(stage.disk_bytes)
        view.add_row(stage.stage, disk, f"[dim]{stage.basis}[/dim]")
    screen.print(view)
    screen.print(
        f"Disk: {size_text(plan.needed_bytes)} needed, {size_text(plan.free_bytes)} free.", soft_wrap=True
    )
    if not plan.enough:
        screen.print("[bold]There is not enough free disk at OUT.[/bold]")


def size_text(n_bytes: int | None) -> str:
    """Write a size with the precision of an estimate: ``1.5 GB``."""
    if n_bytes is None:
        return "not known"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= step:
            return f"{n_bytes / step:.3g} {unit}"
    return f"{n_bytes} B"


def print_comparison(report: CompareReport) -> None:
    """Print one table for each kind of split, the narrowest method first."""
    screen = console.out()
    for reason, n in report.left_out.items():
        screen.print(f"[dim]left out: {n:,} ({reason})[/dim]")
    numbers = ("score / constant", "90 %", "95 %", "99 %", "mean width", "worst element", "fit (s)")
    seconds = report.seconds.set_index(["kind", "method"])["fit_seconds_mean"]
    for kind, rows in report.table.groupby("kind", sort=False):
        new = "compositions" if kind == "composition" else "chemical systems"
        title = f"New {new}, {int(rows['n_splits'].max())} splits"
        view = console.plain_table("method", *numbers, right=numbers, title=title)
        for row in records(rows):
            if not row["n_splits"]:
                view.add_row(str(row["method"]), *["–"] * len(numbers))
                continue
            view.add_row(
                str(row["method"]),
                _spread(row, "interval_score_ratio"),
                *(_percent(row.get(f"coverage_{level}_mean")) for level in (90, 95, 99)),
                _number(row["mean_width_95_mev_per_atom_mean"], 0),
                f"{row['worst_element'] or ''} {_percent(row['worst_element_coverage_95'])}".strip(),
                _number(seconds[kind, row["method"]], 2),
            )
        screen.print(view)
    screen.print(f"[dim]{report.folder / 'index.html'}[/dim]", soft_wrap=True)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _spread(row: dict[str, Any], name: str) -> str:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    return _number(mean, 3) + ("" if std is None else f" ± {std:.3f}")
