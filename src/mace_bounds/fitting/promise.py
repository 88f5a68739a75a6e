"""What a head promises, in words, and how it did on sources left out and on flagged rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.calibration import EVERY_SOURCE, CalibratedHead, Material
from mace_bounds.fitting.exposure import TrainingExposure
from mace_bounds.flags import flag_names
from mace_bounds.levels import TOLERANCE

if TYPE_CHECKING:
    from mace_bounds.fitting.measured import Measured

NOVEL = ("extrapolates", "unseen_element", "unseen_pair")
"""Flags that call a structure unlike the head's data."""


def promise(head: CalibratedHead) -> str:
    """Say what a head promises, in one or two sentences."""
    if head.material is not None and head.conformal.sources:
        names = ", ".join(head.conformal.sources)
        return (
            f"Promised for each family: a structure whose source is the name of one ({names}) gets the bounds that "
            f"hold there, any other {_unknown_family(head.material)}."
        )
    if head.guarantee == EVERY_SOURCE:
        names = ", ".join(head.conformal.sources)
        return (
            f"Promised for every source: a structure whose source is named as one of the head's ({names}) gets the "
            "bounds calibrated on that source, any other the widest of these."
        )
    why = str(source_study(head.provenance).get("why") or "")
    return (
        f"Promised for the sources taken together, in the shares of the labels{f' ({why})' if why else ''}."
    )


def _unknown_family(material: Material) -> str:
    if not material.left_out:
        return "the widest that one of them asks for"
    return (
        "those that held for the worst of the families when each was left out of the fit; that is no promise for what "
        "is unlike all of them (extrapolates), where only the envelope of all corrections (support) has held"
    )


def measured_sentence(head: CalibratedHead, level: float) -> str:
    """What a head promises, where that is more than what all say, and what was measured."""
    promised = f"{promise(head)} " if head.conformal.sources else ""
    for row in head.provenance.get("coverage", []):
        if abs(float(row["level"]) - level) < TOLERANCE:
            what = f"{promised}Measured: {100 * row['coverage']:.1f} % of {row['n']:,}"
            if head.material is not None:
                return f"{what} frames that the head has not used, of the families that it was fitted to."
            exposure = TrainingExposure.of_head(head.provenance).clause()
            return f"{what} structures with compositions that the head has not used{exposure}."
    return promised


def left_out_sentence(about: dict[str, Any]) -> str:
    """Say how coverage on sources left out was measured."""
    study = source_study(about)
    how = (
        "kind and power of the scale chosen"
        if study.get("guarantee") == EVERY_SOURCE
        else "kind of the scale chosen"
    )
    return (
        f"Fitted and calibrated without the source, {how} without it too; compositions that the other sources have "
        "are set aside. This, and not the coverage on compositions left out, is what to expect for structures from "
        "elsewhere."
    )


def flagged_coverage(tests: Sequence[Measured], level: float) -> list[dict[str, Any]]:
    """Coverage of rows called novel, and of the others, by source.

    Parameters
    ----------
    tests : sequence of Measured
        Rows that heads have not seen, of one or several splits.
    level : float

    Returns
    -------
    list of dict
        ``source, n_flagged, flagged_coverage, n_others, others_coverage``, the last line for all sources; a coverage of
        no rows is None.
    """
    sources, novel, covered = [], [], []
    for rows in tests:
        low, high = rows.bounds_at(level)
        sources += rows.table["source"].fillna("").tolist()
        novel += [any(flag in NOVEL for flag in flag_names(text)) for text in rows.table["flags"]]
        covered += ((low <= rows.error) & (rows.error <= high)).tolist()
    source, flagged, inside = (
        np.array(sources, dtype=str),
        np.array(novel, dtype=bool),
        np.array(covered, dtype=bool),
    )
    out = []
    for name in [*np.unique(source), "all"]:
        of_it = np.ones(len(source), dtype=bool) if name == "all" else source == name
        parts = {"flagged": of_it & flagged, "others": of_it & ~flagged}
        line: dict[str, Any] = {"source": str(name)}
        for part, mask in parts.items():
            line[f"n_{part}"] = int(mask.sum())
            line[f"{part}_coverage"] = round(float(inside[mask].mean()), 4) if mask.any() else None
        out.append(line)
    return out


def source_study(about: dict[str, Any]) -> dict[str, Any]:
    """Return the study of sources left out in a head's provenance; empty where there is none."""
    study = about.get("sources_left_out")
    return study if isinstance(study, dict) else {}
