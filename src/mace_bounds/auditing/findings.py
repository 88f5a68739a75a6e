"""What an audit finds in its bounds table: the files it writes, and what the summary says of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mace_bounds.auditing import folder as _folder
from mace_bounds.auditing.atlas import MINIMUM, atlas_table, worst_slab
from mace_bounds.auditing.element_bias import element_bias
from mace_bounds.bounds import SPACE_GROUP
from mace_bounds.fitting import (
    ALL,
    SUSPECT,
    coverage,
    curve,
    headline,
    labelled,
    metrics,
    overall,
    sentence,
    training_known,
    violation_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from mace_bounds.calibration import CalibratedHead
    from mace_bounds.fitting import Measured


def measure(table: pd.DataFrame, head: CalibratedHead, level: float, out: Path) -> dict[str, Any]:
    """Write coverage, curve and violations; return what the summary says of them."""
    everything = labelled(table, head.levels.values)
    for name in (_folder.COVERAGE, _folder.CURVE, _folder.VIOLATIONS):
        (out / name).unlink(missing_ok=True)
    outside = violation_table(labelled(table, head.levels.values, suspect=True), level)
    if len(outside):
        _folder.write_csv(outside, out / _folder.VIOLATIONS)
    if len(everything) == 0:
        why = "every label is suspect" if len(outside) else "no labels"
        return {"measured_on": {"rows": None, "n": 0, "sentence": f"{why}, so bounds only"}}
    chosen = headline(everything, head)
    full = coverage(everything)
    if chosen is not everything:
        import pandas as pd

        full = pd.concat([coverage(chosen), full], ignore_index=True)
    _folder.write_csv(full, out / _folder.COVERAGE)
    _folder.write_csv(_curve_table(chosen, head), out / _folder.CURVE)
    roles = {str(k): int(v) for k, v in everything.table["seen_in"].value_counts().items()}
    return {
        "measured_on": {
            "rows": chosen.name,
            "n": len(chosen),
            "in_training": chosen.n_in_training,
            "training_known": training_known(head),
            "sentence": sentence(chosen, roles, head),
        },
        "seen_in": roles,
        "coverage": overall(full, chosen.name),
        "coverage_all_labelled": overall(full, ALL),
        "metrics": metrics(chosen),
        "violations": {"level": level, "n": len(outside)},
    }


def atlas(table: pd.DataFrame, head: CalibratedHead, level: float, out: Path) -> dict[str, Any] | None:
    """Write the atlas and the bias of elements of the headline's rows; return what the summary says of them."""
    for name in (_folder.ATLAS, _folder.ELEMENT_BIAS):
        (out / name).unlink(missing_ok=True)
    rows = headline(labelled(table, head.levels.values), head)
    if len(rows) < MINIMUM:
        return None
    full = atlas_table(rows)
    bias = element_bias(rows.table["formula"].tolist(), rows.error)
    _folder.write_csv(full, out / _folder.ATLAS)
    _folder.write_csv(bias, out / _folder.ELEMENT_BIAS)
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
    raised = Counter[str]()
    for flags, n in table["flags"].value_counts().items():
        raised.update(dict.fromkeys(str(flags).split(";"), int(n)))
    return {
        "structures": len(table),
        "scored": int(good.sum()),
        "failed": int((~good).sum()),
        "labelled": int((good & table["energy_dft_ev"].notna()).sum()),
        "suspect_labels": raised[SUSPECT],
        "refused_labels": raised["label_refused"],
        "extrapolating": raised["extrapolates"],
        "unseen_elements": raised["unseen_element"],
    }


def failures(table: pd.DataFrame, out: Path) -> list[dict[str, Any]]:
    """Write the failed rows; return the commonest reasons, most frequent first."""
    failed = table[table["reason"].notna()][["id", "source", "reason"]]
    (out / _folder.FAILURES).unlink(missing_ok=True)
    if len(failed) == 0:
        return []
    _folder.write_csv(failed, out / _folder.FAILURES)
    return [{"reason": str(k), "n": int(v)} for k, v in failed["reason"].value_counts().head(20).items()]
