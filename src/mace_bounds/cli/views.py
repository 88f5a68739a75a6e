"""What results look like on the screen: cards, tables and the sentences around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.cli.console import say, show
from mace_bounds.cli.explain import print_why
from mace_bounds.cli.row import (
    NO_BOUND,
    energy_of,
    envelope_of,
    error_of,
    has_bound,
    interval_of,
    is_refitted,
)
from mace_bounds.cli.sheet import Part, Sheet
from mace_bounds.flags import FLAGS, flag_names
from mace_bounds.levels import percent
from mace_bounds.structures import TOTAL_ENERGY
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.auditing import AuditResult
    from mace_bounds.bounds import Explanation, HeadCard
    from mace_bounds.calibration import CalibratedHead
    from mace_bounds.fitting import FitReport, TextTable
    from mace_bounds.pipeline import BuildResult, Plan

MAX_GROUPS = 16
"""Groups that a table of coverage shows, those of lowest coverage first."""
SHOWN_LEVEL = 0.95


def print_bounds(
    table: pd.DataFrame, head: CalibratedHead | None, level: float, explanation: Explanation | None = None
) -> None:
    """Print bounds: a card for one structure, a table for several; failures are left to standard error.

    A table of a service comes without its head.
    Of an ``explanation`` the card has the verdict and the nearest labelled crystal, where the head knows its rows.
    """
    good = table[table["reason"].isna()]
    if len(good) == 0:
        return
    if len(table) == 1:
        _print_card(records(good)[0], level)
        if explanation is not None and explanation.neighbours:
            print_why(explanation)
    else:
        show(_bounds_sheet(good, level))
    from mace_bounds.fitting import measured_sentence

    row = records(good.iloc[:1])[0]
    whose = f"Model {row['model']} ({row['model_digest']}), head {row['head']}."
    if head is not None:
        from mace_bounds.bounds import energy_note

        whose = energy_note(head) or whose
    bounded = (
        f"{whose} "
        f"The bounds hold E_DFT, here the {row['quantity']}, for {percent(level)} % of structures like those "
        f"the head was calibrated on. {'' if head is None else measured_sentence(head, level)}"
    )
    say((bounded, "dim"), wrap=True)
    print_flags(good["flags"])


def print_flags(flags: Iterable[Any]) -> None:
    """Explain each flag that occurs in a column ``flags``."""
    for flag in sorted({name for text in flags for name in flag_names(text)}):
        say((flag, "yellow"), (f": {FLAGS[flag].meaning}", "dim"), wrap=True)


def _print_card(row: dict[str, Any], level: float) -> None:
    n_atoms = int(row["n_atoms"])
    say((row["formula"], "bold"), (f"  {row['id']}, {n_atoms} atoms", "dim"), wrap=True)
    low, high = row["energy_lower_ev"], row["energy_upper_ev"]
    name, energy = energy_of(row)
    lines: list[tuple[str, Part, str]] = [
        (name, f"{energy:.4f} eV", f"{energy / n_atoms:.4f} eV/atom"),
        (
            f"E_DFT, {percent(level)} % bounds",
            (f"{low:.4f} to {high:.4f} eV", "bold") if has_bound(row) else (NO_BOUND, "bold"),
            f"{low / n_atoms:.4f} to {high / n_atoms:.4f} eV/atom" if has_bound(row) else "",
        ),
        (f"E_DFT − {name}", (interval_of(row, " meV/atom"), "bold"), "lower to upper bound"),
    ]
    if is_refitted(row):
        lines.append(("envelope", f"{envelope_of(row)} meV/atom", f"of E_DFT − {name}: all corrections"))
    else:
        expected = f"{row['expected_error_mev_per_atom']:+.1f} meV/atom"
        lines.append(("expected error", expected, f"best guess of E_DFT − {name}"))
    if row["energy_dft_ev"] is not None:
        where = "inside" if row["inside"] else "outside"
        aside = f"{error_of(row, 1)[0]} meV/atom, {where}"
        lines.append(("label", f"{row['energy_dft_ev']:.4f} eV", aside))
    card = Sheet("what", "energy", "aside", numbers=["energy"], headed=False)
    for name, value, aside in lines:
        card.add((name, "dim"), value, (aside, "dim"))
    show(card)
    say(("flags  ", "dim"), _flags(row) or "none", wrap=True)


def _bounds_sheet(table: pd.DataFrame, level: float) -> Sheet:
    labelled = bool(table["energy_dft_ev"].notna().any())
    first = records(table.iloc[:1])[0]
    of, refitted = energy_of(first)[0], is_refitted(first)
    numbers = ["atoms", f"{of} (eV)", f"E_DFT, {percent(level)} % (eV)", "error bounds (meV/atom)"]
    numbers += ["envelope (meV/atom)"] * refitted
    numbers += ["error"] * labelled
    sheet = Sheet("id", "formula", *numbers, "flags", numbers=numbers)
    for row in records(table):
        sheet.add(
            str(row["id"]),
            str(row["formula"]),
            f"{int(row['n_atoms'])}",
            f"{energy_of(row)[1]:.3f}",
            f"{row['energy_lower_ev']:.3f} to {row['energy_upper_ev']:.3f}" if has_bound(row) else "",
            interval_of(row),
            *([envelope_of(row)] if refitted else []),
            *([error_of(row)] if labelled else []),
            _flags(row),
        )
    return sheet


def _flags(row: dict[str, Any]) -> Part:
    names = flag_names(row["flags"])
    return (", ".join(names), "yellow") if names else ""


def coverage_view(rows: Sequence[dict[str, float]], title: str) -> Sheet:
    """Overall coverage at each level, with confidence interval, count and widths."""
    from mace_bounds.fitting import coverage_by_level

    return text_view(coverage_by_level(rows), title, rows)


def groups_view(coverage: pd.DataFrame, level: float, by: Sequence[str]) -> Sheet | None:
    """Coverage of groups at one level, lowest first; None where there are no groups."""
    from mace_bounds.fitting import at_level, coverage_by_group

    picked = at_level(coverage[coverage["by"].isin(list(by))], level)
    if len(picked) == 0:
        return None
    rows = records(picked.sort_values(["coverage", "n"], kind="stable").head(MAX_GROUPS))
    return text_view(coverage_by_group(rows, level), rows=rows)


def text_view(table: TextTable, title: str = "", rows: Sequence[dict[str, Any]] | None = None) -> Sheet:
    """A table of text; with the ``rows`` that it was made from, coverage stands out, red where it is too low."""
    view = Sheet(*table.columns, numbers=table.numbers, title=title)
    for k, line in enumerate(table.rows):
        cells: list[Part] = [*line]
        if rows is not None:
            cells[1] = (line[1], "red" if rows[k]["coverage_high"] < rows[k]["level"] else "bold")
        view.add(*cells)
    return view


def _print_groups(coverage: pd.DataFrame, level: float) -> None:
    groups = groups_view(coverage, level, ("source", "chemistry"))
    if groups is not None:
        show(groups)


def print_fit(report: FitReport, head: Path) -> None:
    """Print a fitted head: its rows, its coverage over splits and by group, its centre and scale."""
    from mace_bounds.fitting import UNSEEN, TrainingExposure, coverage_over_splits, promise, sources_left_out

    about = report.head.provenance
    rows = ", ".join(f"{n:,} {name}" for name, n in report.splits.items() if n)
    of = report.head.identity
    say((str(head), "bold"), (f"  head for {of.model}, of the {of.quantity}: {rows}", "dim"), wrap=True)
    print_labels(about["labels"])
    for reason, n in report.left_out.items():
        say((f"left out: {n:,} ({reason})", "dim"))
    exposure = TrainingExposure.of_head(about)
    new_to_all = exposure.evaluation_subset == UNSEEN
    title = "unseen compositions" if new_to_all else "compositions not used by the head"
    show(coverage_view(about["coverage"], f"Coverage on {title}"))
    if warning := exposure.warning(report.head.identity.model):
        say((warning, "dim"), wrap=True)
    n_splits = int(report.repeats["n_splits"].iloc[0]) if len(report.repeats) else 0
    if n_splits > 1:
        show(text_view(coverage_over_splits(records(report.repeats)), f"Over {n_splits} splits"))
    levels = list(report.head.levels)
    _print_groups(report.coverage, SHOWN_LEVEL if SHOWN_LEVEL in levels else levels[-1])
    if (elsewhere := sources_left_out(about)).rows:
        show(text_view(elsewhere, "On sources left out"))
    _print_verdict(about["verdict"])
    say((promise(report.head), "bold"), wrap=True)
    centre = report.head.centre.describe()
    say((f"Centred on {centre}; scale {report.head.scale.describe()}.", "dim"), wrap=True)
    say((f"Use it: mace-bounds score FILE --head {head}", "dim"))


def _print_verdict(values: dict[str, Any]) -> None:
    from mace_bounds.fitting import Verdict

    verdict = Verdict(**values)
    say((verdict.numbers, "dim"), wrap=True)
    say((verdict.sentence, "bold"), wrap=True)


def print_labels(summary: dict[str, Any]) -> None:
    """Print which labels a source has given, and which were refused and why."""
    from mace_bounds.features import label_sentences

    for line in label_sentences(summary):
        say((line, "dim"), wrap=True)


def heads_view(cards: Sequence[HeadCard]) -> Sheet:
    """Installed heads and their measured coverage."""
    covers = "coverage, %: nominal→found"  # pairs have no blank inside, at which they could be folded
    view = Sheet("head", "model", "weights", "rows", covers, "folder", numbers=["rows"])
    for card in cards:
        covered = "" if card.quantity == TOTAL_ENERGY else f"of the {card.quantity}; "
        covered += " ".join(
            f"{percent(float(level))}→{100 * share:.1f}" for level, share in card.coverage.items()
        )
        where = "shipped" if card.shipped else str(card.path)
        rows = f"{sum(card.rows.values()):,}"
        if card.reason:
            rows, covered = "", card.reason
        view.add(card.name, card.model, card.model_digest[:12], rows, covered, where)
    return view


def models_view(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Models that can be named, whether they are here, and their heads."""
    view = Sheet("model", "where", "heads", "what it is")
    for row in rows:
        absent = row["install"] or "fetched on first use"
        where = ("here", "green") if row["here"] else (absent, "dim")
        heads = ", ".join(map(_head_and_quantity, row["heads"])) or ("none yet", "dim")
        view.add((row["name"], "bold"), where, heads, (row["description"], "dim"))
    return view


def _head_and_quantity(card: HeadCard) -> str:
    """The name of a head, marked where it bounds something else than total energies: it must then be named."""
    return card.name if card.quantity == TOTAL_ENERGY else f"{card.name} (only of the {card.quantity})"


def print_audit(result: AuditResult) -> None:
    """Print an audit: what was bounded, the coverage, suspects, and where the report is."""
    summary = result.summary
    counts, level, published = summary["counts"], summary["settings"]["level"], summary["published"]
    name = str(summary["model"]["name"])
    if published:
        name = f"{published['column']} (published energies; features of {name})"
    say(
        (f"{counts['scored']:,} structures", "bold"),
        f" bounded by {name} with the head {summary['head']['name']}"
        + (f", {counts['failed']:,} could not be scored" if counts["failed"] else "")
        + (f", {counts['suspect_labels']:,} suspect labels left out" if counts["suspect_labels"] else "")
        + f". Bounds of the {summary['head']['quantity']}.",
        wrap=True,
    )
    print_labels(summary["labels"])
    measured = summary["measured_on"]
    if measured["n"]:
        show(coverage_view(summary["coverage"], "Measured coverage"))
        say((f"on {measured['sentence']}.", "dim"), wrap=True)
        if result.coverage is not None:
            _print_groups(result.coverage[result.coverage["rows"] == measured["rows"]], level)
    else:
        say((f"Coverage is not measured: {measured['sentence']}.", "dim"), wrap=True)
    if summary["suspects"]["n"]:
        n_labels = summary["suspects"].get("label", 0)
        say(
            f"{summary['suspects']['n']:,} suspect entries in suspects.csv, {n_labels:,} of them rather by their label "
            "than by the model.",
            wrap=True,
        )
    for row in summary["failures"][:3]:
        say((f"{row['n']:,} not scored: {row['reason']}", "dim"), wrap=True)
    if (folder := summary["head"].get("folder")) and not published:
        say(f"Head of all its labels: mace-bounds score FILE --head {result.folder / folder}")
    names = [name for name in summary["files"] if "/" not in name and name != result.report.name]
    say((str(result.report), "bold"))
    say((f"beside it {', '.join(names)}, plots/", "dim"), wrap=True)


def print_build(result: BuildResult, model: str, installed: Path | None) -> None:
    """Print a build: its features, the head and its coverage, and how to use it."""
    out = result.folder
    for name, stage in result.stages.items():
        if name.startswith("features"):
            made = stage["made"]
            failed = f", {made['failed']:,} with a reason instead" if made["failed"] else ""
            rows = made["rows"] - made["failed"]
            say((f"{rows:,} structures in {out / made['folder']}{failed}", "dim"))
    if result.head is None:
        return
    made = result.stages["fit"]["made"]
    rows = ", ".join(f"{n:,} {name}" for name, n in made["rows"].items() if n)
    about = f"  head for {model}, of the {made.get('quantity', TOTAL_ENERGY)}: {rows}"
    say((str(result.head), "bold"), (about, "dim"), wrap=True)
    show(coverage_view(made["coverage"], "Coverage on compositions that the head has not used"))
    if "verdict" in made:  # not in a build that an older version fitted
        _print_verdict(made["verdict"])
    style = "dim" if made["new_to_model"] else "bold"
    say((result.training, style), wrap=True)
    if result.report is not None:
        say((str(result.report), "bold"))
    if installed is not None:
        say(f"Installed as {installed}: mace-bounds score FILE --model {model}")
    else:
        use = f"Use it: mace-bounds score FILE --model {model} --head {result.head} (or --install NAME)"
        say((use, "dim"))


def print_plan(plan: Plan) -> None:
    """Print what a build would fetch and how much disk it needs."""
    say(("Dry run", "bold"), (f"  nothing is written into {plan.out}", "dim"))
    for source in plan.sources:
        if not source.known:
            say(f"{source.name}: not counted, as there is no key of the Materials Project", wrap=True)
            continue
        about = "" if source.counted else "about "
        text = (
            f"{source.name}: {about}{source.structures:,} structures, {about}{source.labelled:,} with a label, "
            f"{source.atoms / max(source.structures, 1):.1f} atoms each"
        )
        if source.preview is not None:
            text += f"; {source.preview.documents:,} documents to fetch from version {source.preview.database_version}"
        say(text, wrap=True)
    weights = plan.weights
    size = f"{weights.size_bytes:,} bytes" if weights.size_bytes else "size not known"
    where = (
        f"here, {weights.path}" if weights.here else f"mace fetches it from {weights.url} into {weights.path}"
    )
    say(f"{weights.model}: {size}, {where}")
    view = Sheet("stage", "disk in OUT", "basis", numbers=("disk in OUT",))
    for stage in plan.stages:
        disk = "done" if stage.done else size_text(stage.disk_bytes)
        view.add(stage.stage, disk, (stage.basis, "dim"))
    show(view)
    say(f"Disk: {size_text(plan.needed_bytes)} needed, {size_text(plan.free_bytes)} free.")
    if not plan.enough:
        say(("There is not enough free disk at OUT.", "bold"))


def size_text(n_bytes: int | None) -> str:
    """Write a size with the precision of an estimate: ``1.5 GB``."""
    if n_bytes is None:
        return "not known"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= step:
            return f"{n_bytes / step:.3g} {unit}"
    return f"{n_bytes} B"
