"""The card of a head: what it is, what it was made from, what it covers, what it does not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mace_bounds.calibration import CalibratedHead
from mace_bounds.columns import MEV_PER_EV
from mace_bounds.features import label_sentences
from mace_bounds.fitting.exposure import TrainingExposure
from mace_bounds.fitting.measured import GROUPINGS
from mace_bounds.fitting.promise import left_out_sentence, promise
from mace_bounds.fitting.text_tables import (
    at_level,
    coverage_by_group,
    coverage_by_level,
    coverage_over_splits,
    flagged_and_others,
    sources_left_out,
)
from mace_bounds.fitting.verdict import Verdict
from mace_bounds.flags import FLAGS
from mace_bounds.levels import TOLERANCE, percent
from mace_bounds.screen import markdown_text, visible
from mace_bounds.tables import records

if TYPE_CHECKING:
    import pandas as pd

_REFERENCE = 0.95
"""Level of the table by group, where the head has it."""
_SHOWN = ("source", "chemistry", "size", "run_type")
_FLAGS = ("extrapolates", "unseen_element", "unseen_pair", "in_training", "suspect_label")
"""Flags that bounds of the head can raise."""


def head_card(name: str, head: CalibratedHead, coverage: pd.DataFrame) -> str:
    """Write a head's README in Markdown.

    Parameters
    ----------
    name : str
        Name of the head.
    head : CalibratedHead
        With the provenance that :func:`mace_bounds.fitting.fit` gives it.
    coverage : DataFrame
        Measured on its test split.
    """
    about, exposure = head.provenance, TrainingExposure.of_head(head.provenance)
    reference = _REFERENCE if _REFERENCE in head.levels else head.levels[-1]
    others = "the head's fit" if not exposure.known or exposure.included else "the head's fit and calibration"
    last = "its calibration" if not exposure.known or exposure.included else "the model's own training"
    warning = exposure.warning()
    measured = [
        "## Coverage, measured",
        f"On {about['rows']['test']:,} structures of compositions that neither {others} nor {last} has seen"
        f"{exposure.clause()}. Intervals are 95 % confidence, clustered by composition.",
        *([f"**{warning}**"] if warning else []),
        coverage_by_level(about["coverage"]).markdown(),
        *_over_splits(about["coverage_over_splits"]),
        *_verdict(about.get("verdict")),
        *_left_out(about),
        f"### By group, at the level {percent(reference)} %",
        _group_table(coverage, reference),
        *_flagged(about, reference),
        *_section("Compared with other ways to get error bars", about.get("comparison", "")),
        *_section("How these numbers were developed", about["development"]),
    ]
    return _card(name, head, measured)


def unmeasured_card(name: str, head: CalibratedHead, labels: str) -> str:
    """Write the README of a head that an audit fitted to its source: no rows are left to measure it on.

    Parameters
    ----------
    name : str
        Name of the head.
    head : CalibratedHead
        With the provenance that an audit gives it.
    labels : str
        Which labels it was fitted to.
    """
    text = (
        f"Fitted by an audit to {labels}. The audit measured coverage with heads made the "
        "same way, each on compositions left out of it: see `report.html` and `coverage.csv` two folders up."
    )
    return _card(name, head, ["## Coverage", text])


def recalibrated_card(name: str, head: CalibratedHead) -> str:
    """Write the README of a head that labels of one's own have shifted and scaled.

    Parameters
    ----------
    name : str
        Name of the head.
    head : CalibratedHead
        With the provenance that :func:`mace_bounds.fitting.calibrate` gives it.
    """
    about = head.provenance["recalibrated"]
    parent, change = about["parent"], about["change"]
    exposure = TrainingExposure.of_head(head.provenance)
    warning = exposure.warning()
    sources = ", ".join(f"{markdown_text(k)} ({n:,})" for k, n in about["sources"].items())
    done = (
        f"Its expected errors are shifted by {MEV_PER_EV * change['shift_ev_per_atom']:+.1f} meV/atom and its widths "
        f"multiplied by {change['factor']:.2f}."
    )
    text = [
        "## Recalibrated",
        f"Made from the head **{markdown_text(parent['name'])}** (digest `{parent['digest']}`) with "
        f"{about['n_labels']:,} labels of {about['n_compositions']:,} compositions: {sources}. {done} All else is the "
        "old head's: the data and splits below are those that it was made from.",
        _facts(
            {"Labels": _labels(about), "Notes": about.get("notes", ""), "Licence": about.get("licence", "")}
        ),
        "## Coverage, measured",
        f"On the same labels, each by a head that was changed without its composition{exposure.clause()}. Intervals "
        "are 95 % confidence, clustered by composition.",
        *([f"**{warning}**"] if warning else []),
        "Before:",
        coverage_by_level(about["before"]).markdown(),
        "After:",
        coverage_by_level(about["after"]).markdown(),
        gain_sentence(about),
    ]
    return _card(name, head, text)


def gain_sentence(about: Mapping[str, Any]) -> str:
    """Say what recalibration has gained.

    Parameters
    ----------
    about : mapping
        ``recalibrated`` of a head's provenance.
    """
    gain = about["gain"]
    level = percent(gain["level"])
    scores = [
        next(
            row["interval_score_mev_per_atom"]
            for row in about[k]
            if abs(row["level"] - gain["level"]) < TOLERANCE
        )
        for k in ("before", "after")
    ]
    numbers = (
        f"At {level} % the interval score (lower is better) goes from {scores[0]:.0f} to {scores[1]:.0f} meV/atom: "
        f"{'better' if gain['gain_mev_per_atom'] > 0 else 'worse'} by {abs(gain['gain_mev_per_atom']):.0f} ± "
        f"{gain['error_mev_per_atom']:.0f}."
    )
    changed = about["change"] != {"shift_ev_per_atom": 0.0, "factor": 1.0}
    return f"{numbers} {_said(gain['says'], changed=changed)}" if changed else _said("", changed=False)


def _said(says: str, *, changed: bool) -> str:
    if not changed:
        return "Verdict: no better than before: what these labels show is within chance, and the old bounds are kept."
    return {
        "better": "Verdict: better than before by more than chance.",
        "wider": "Verdict: the old bounds held too rarely for these labels, and are wider now; they are too few to "
        "tell whether that makes a better score.",
    }.get(
        says,
        "Verdict: no better than before, as far as these labels can tell; the old head may serve as well.",
    )


def _card(name: str, head: CalibratedHead, coverage: list[str]) -> str:
    """Put the card together around what is known of the coverage."""
    about, identity = head.provenance, head.identity
    settings, exposure = about["settings"], TrainingExposure.of_head(about)
    parts = [
        f"# {markdown_text(name)}: error bounds for {markdown_text(identity.model)}",
        f"A head of mace-bounds for {_whose(head)} (SHA-256 of its tensors `{identity.model_digest}`, "
        f"model head {markdown_text(identity.model_head)}, {len(identity.columns)} {identity.kind} features"
        f"{' and atomic fractions' if identity.composition else ''}). It belongs to these weights and to no others. It "
        f"bounds the **{markdown_text(identity.quantity)}**.",
        *coverage,
        *_warnings(about.get("warnings", ())),
        "## Data and splits",
        _facts(
            {
                "Bounds of": markdown_text(identity.quantity),
                "Labels": _labels(about),
                "Sources": ", ".join(f"{markdown_text(k)} ({n:,})" for k, n in about["sources"].items()),
                "Rows": ", ".join(f"{k} {n:,}" for k, n in about["rows"].items() if n),
                "Left out": ", ".join(f"{markdown_text(k)}: {n:,}" for k, n in about["left_out"].items())
                or "none",
                "The model's training": f"{about['n_training_compositions']:,} compositions, which the head keeps"
                if about.get("n_training_compositions")
                else ""
                if exposure.known
                else "not known here",
                "Split by": f"{settings['split_by']}, seed {settings['seed']}",
                "Posterior": f"{settings['posterior']}, {settings['clip_percent']:g} % clipped on each side",
                "Centre": head.centre.describe(),
                "Promise": markdown_text(promise(head)),
                "Scale": head.scale.describe(),
                "Conformal": _conformal(settings, len(head.folds)),
                "Novelty": _novelty(head),
                "Golden energies": f"of {len(golden.energies_ev_per_atom)} built-in cells, in {golden.dtype}: a "
                "model that gives others is refused"
                if (golden := identity.golden)
                else "none: the model is identified by its tensors alone",
                "Data fingerprint": f"`{about['data_sha256']}`",
                "Notes": about["notes"],
                "Licence": about["licence"] or "not stated; that of the data applies",
                "Made with": f"mace-bounds {about['versions']['mace-bounds']}",
            }
        ),
        "## Use",
        f"```sh\nmace-bounds score FILE.cif --head PATH/TO/{visible(name)}"
        f"{' --predictions TABLE --energy-column NAME' if head.published else ''}\n```",
        "## What the bounds mean, and what they do not",
        "E_model + lower ≤ E_DFT ≤ E_model + upper holds for the stated share (the level) of structures that resemble "
        f"the data above, where E_DFT is the {markdown_text(identity.quantity)} of the labels: same functional, "
        "settings and geometry. It is a "
        "share of many structures, not a promise for one. In groups whose measured coverage is below the level the "
        "bounds hold less often. Bounds say nothing about the error of DFT itself, and the difference of two energies "
        "has another error than each of them.",
        "## Flags",
        "Rows of the bounds table can carry these flags:",
        "\n".join(f"- `{flag}`: {FLAGS[flag].meaning}" for flag in _FLAGS),
    ]
    return "\n\n".join(parts) + "\n"


def _whose(head: CalibratedHead) -> str:
    """The frozen model, and whose energies are bounded where these are another model's."""
    identity = head.identity
    frozen = f"the frozen model **{markdown_text(identity.backbone)}**"
    if not identity.features_of:
        return frozen
    return f"energies of **{markdown_text(identity.model)}**, given beside the structures, with features of {frozen}"


def _labels(about: dict[str, Any]) -> str:
    """Which labels were taken and refused, and by which key."""
    if "labels" in about:
        return markdown_text(" ".join(label_sentences(about["labels"]))).removeprefix("labels: ").rstrip(".")
    return ", ".join(f"{markdown_text(k)} ({n:,})" for k, n in about["label_kinds"].items())


def _warnings(warnings: Iterable[str]) -> list[str]:
    """What went wrong in the fit without stopping it: optimisers that did not converge."""
    lines = [f"- {text}" for text in warnings]
    return ["## Warnings of the fit", "\n".join(lines)] if lines else []


def _conformal(settings: dict[str, Any], n_folds: int) -> str:
    """How scores became intervals, and what that promises."""
    if n_folds:
        how = f"CV+ over {n_folds} folds of compositions; coverage of at least 1 - 2α is guaranteed at the level 1 - α"
    else:
        how = "split conformal; coverage of at least the level is guaranteed"
    parts = [f"{how}, for exchangeable compositions of equal weight"]
    if settings.get("signed"):
        parts.append("lower and upper bounds separately")
    if settings.get("groups", "none") != "none":
        parts.append(f"separate quantiles by {settings['groups']}")
    return "; ".join(parts)


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _novelty(head: CalibratedHead) -> str:
    """What is graded, and how often familiar kinds of structures are flagged."""
    if head.novelty is None:
        return "leverage alone"
    graded = "structures and single atoms" if head.novelty.wants_atoms else "structures"
    rates = head.novelty.rates
    if not rates.get("n_measured"):
        return f"{graded} graded; rate of false alarms not measured"
    return (
        f"{graded} graded; {100 * rates['measured']['any_grade']:.1f} % of {rates['n_measured']:,} structures of new "
        "compositions flagged `extrapolates`"
    )


def _left_out(about: dict[str, Any]) -> list[str]:
    """Coverage and scores on sources that no label came from."""
    table = sources_left_out(about)
    title = "### On sources left out"
    return [title, left_out_sentence(about), table.markdown()] if table.rows else []


def _flagged(about: dict[str, Any], level: float) -> list[str]:
    """Whether the flags of novelty tell where bounds fail."""
    rows = about.get("flagged", [])
    if not rows:
        return []
    title = f"### Rows flagged as novel, at the level {percent(level)} %"
    text = "Flags `extrapolates`, `unseen_element` or `unseen_pair` on the test rows of all splits."
    return [title, text, flagged_and_others(rows).markdown()]


def _over_splits(rows: list[dict[str, float]]) -> list[str]:
    if not rows or rows[0]["n_splits"] < 2:
        return []
    return [f"Over {rows[0]['n_splits']} splits with other seeds:", coverage_over_splits(rows).markdown()]


def _verdict(values: dict[str, Any] | None) -> list[str]:
    if values is None:  # a head that an older version fitted
        return []
    verdict = Verdict(**values)
    return ["### Beside one constant width", verdict.numbers, f"**{verdict.sentence}**"]


def _group_table(coverage: pd.DataFrame, level: float) -> str:
    picked = at_level(coverage, level)
    rows = [row for by in _SHOWN for row in records(picked[picked["by"] == by])]
    return coverage_by_group(rows, level, GROUPINGS).markdown()


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items() if value)
