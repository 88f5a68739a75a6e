"""What an audit finds in its bounds table: the tables it writes, and what the summary says of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.atlas import atlas_table, element_bias, worst_slab
from mace_bounds.bounds import SPACE_GROUP, SUSPECT
from mace_bounds.calibration import CalibratedHead
from mace_bounds.features import label_sentences, label_summary
from mace_bounds.fitting import (
    ALL,
    MIN_ROWS_PER_GROUP,
    Measured,
    coverage,
    curve,
    evaluation_subset,
    exposure_of,
    labelled,
    left_out_sentence,
    metrics,
    overall,
    promise,
    sentence,
    sources_left_out,
    violation_table,
)
from mace_bounds.flags import flag_names

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.auditing.folder import AuditFolder

_MAX_REASONS = 20
"""Reasons for failures that a summary lists."""


def about_head(head: CalibratedHead) -> dict[str, Any]:
    """What a summary says of the head."""
    elsewhere = sources_left_out(head.provenance)
    return {
        "name": head.name,
        "digest": head.digest,
        "quantity": head.identity.quantity,
        "levels": list(head.levels),
        "quantiles": {f"{x:g}": head.conformal.half_width(x) for x in head.levels},
        "centre": "refit" if head.refit else "model",
        "scale": head.scale.kind,
        "rows": head.provenance.get("rows", {}),
        "coverage_when_made": head.provenance.get("coverage", []),
        "guarantee": head.guarantee,
        "promise": promise(head),
        "sources_left_out": {
            "columns": list(elsewhere.columns),
            "lines": [list(line) for line in elsewhere.rows],
            "sentence": left_out_sentence(head.provenance),
        },
    }


def measure(table: pd.DataFrame, head: CalibratedHead, level: float, out: AuditFolder) -> dict[str, Any]:
    """Write coverage, curve and violations; return what the summary says of them."""
    import pandas as pd

    everything = labelled(table, head.levels)
    out.remove(_folder.COVERAGE, _folder.CURVE, _folder.VIOLATIONS)
    outside = violation_table(labelled(table, head.levels, suspect=True), level)
    if len(outside):
        out.write(_folder.VIOLATIONS, outside)
    if len(everything) == 0:
        why = "every label is suspect" if len(outside) else "no labels"
        return {"measured_on": {"rows": None, "n": 0, "sentence": f"{why}, so bounds only"}}
    chosen = evaluation_subset(everything, head)
    full = coverage(everything)
    if chosen is not everything:
        full = pd.concat([coverage(chosen), full], ignore_index=True)
    out.write(_folder.COVERAGE, full)
    out.write(_folder.CURVE, _curve_table(chosen, head))
    seen_in = {str(k): int(v) for k, v in everything.table["seen_in"].value_counts().items()}
    exposure = exposure_of(chosen, head)
    return {
        "measured_on": {
            "rows": chosen.name,
            "n": len(chosen),
            "n_compositions": len(set(chosen.clusters.tolist())),
            "largest_composition": dict(zip(("formula", "n"), chosen.largest_composition, strict=True)),
            "in_training": chosen.n_in_training,
            "training_known": exposure.known,
            "sentence": sentence(chosen, seen_in, head),
            "warning": exposure.warning(),
        },
        "seen_in": seen_in,
        "coverage": overall(full, chosen.name),
        "coverage_all_labelled": overall(full, ALL),
        "metrics": metrics(chosen),
        "violations": {"level": level, "n": len(outside)},
    }


def atlas(table: pd.DataFrame, head: CalibratedHead, level: float, out: AuditFolder) -> dict[str, Any] | None:
    """Write the atlas and the bias of elements of the measured rows; return what the summary says of them."""
    out.remove(_folder.ATLAS, _folder.ELEMENT_BIAS)
    rows = evaluation_subset(labelled(table, head.levels), head)
    if len(rows) < MIN_ROWS_PER_GROUP:
        return None
    full = atlas_table(rows)
    bias = element_bias(rows.table["formula"].tolist(), rows.error)
    out.write(_folder.ATLAS, full)
    out.write(_folder.ELEMENT_BIAS, bias)
    level = rows.levels.values[rows.levels.index(level)]
    groups = full[(full["level"] == level) & (full["by"] != "all")]
    low = groups["coverage"] < level
    return {
        "rows": rows.name,
        "n": len(rows),
        "groups": len(groups),
        "significantly_low": int((groups["significant"] & low).sum()),
        "significantly_high": int((groups["significant"] & ~low).sum()),
        "biased": int(groups["bias_significant"].sum()),
        "biased_elements": int(bias["significant"].sum()),
        "worst_slab_coverage": worst_slab(rows, level),
        "symmetry": bool(rows.table[SPACE_GROUP].notna().any()),
    }


def _curve_table(rows: Measured, head: CalibratedHead) -> pd.DataFrame:
    import pandas as pd

    drawn = curve(rows, head)
    return pd.DataFrame(
        {
            "level": drawn.level,
            "coverage": drawn.observed,
            "coverage_low": drawn.low,
            "coverage_high": drawn.high,
            "n": drawn.n,
        }
    )


def counts(table: pd.DataFrame) -> dict[str, int]:
    """How many structures went which way."""
    good = table["reason"].isna()
    raised = flag_counts(table)
    return {
        "structures": len(table),
        "scored": int(good.sum()),
        "failed": int((~good).sum()),
        "labelled": int((good & table["energy_dft_ev"].notna()).sum()),
        "suspect_labels": raised.get(SUSPECT, 0),
        "refused_labels": raised.get("label_refused", 0),
        "extrapolating": raised.get("extrapolates", 0),
        "unseen_elements": raised.get("unseen_element", 0),
    }


def labels(table: pd.DataFrame) -> dict[str, Any]:
    """Which labels were taken and refused, also in sentences."""
    summary = label_summary(table[table["reason"].isna()], "energy_dft_ev")
    return {**summary, "sentences": label_sentences(summary)}


def flag_counts(table: pd.DataFrame) -> dict[str, int]:
    """How many structures carry each flag, the most frequent flag first."""
    raised = Counter[str]()
    for flags, n in table["flags"].value_counts().items():
        for flag in flag_names(flags):
            raised[flag] += int(n)
    return dict(raised.most_common())


def failures(table: pd.DataFrame, out: AuditFolder) -> list[dict[str, Any]]:
    """Write the failed rows; return the commonest reasons, most frequent first."""
    failed = table[table["reason"].notna()][["id", "source", "reason"]]
    out.remove(_folder.FAILURES)
    if len(failed) == 0:
        return []
    out.write(_folder.FAILURES, failed)
    common = failed["reason"].value_counts().head(_MAX_REASONS)
    return [{"reason": str(reason), "n": int(n)} for reason, n in common.items()]
