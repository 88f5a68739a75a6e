"""Labels of rows beside the model's energies: refused by source, counted for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mace_bounds.errors import LabelError
from mace_bounds.features.rows import FeatureRows, element_counts
from mace_bounds.structures import MINIMUM_ROWS, TOTAL_ENERGY, Record, label_trouble, reasons_in_short

if TYPE_CHECKING:
    import pandas as pd

Refused: TypeAlias = "dict[tuple[str, str], str]"
"""One sentence why the labels are refused, by their source and kind (the key that they came from)."""

LABEL_COLUMNS = (
    "source",
    "label_kind",
    "label_reason",
    "reason",
    "n_atoms",
    "elements",
    "counts",
    "energy_ev",
    "energy_model_ev",
    "fixed_energy_ev",
)
"""Columns of a store from which labels are judged."""

_ENOUGH = 6_000  # rows of a source, evenly spaced
_SHOWN = 3


def other_quantity(quantity: str, wanted: str) -> str | None:
    """Say why labels of one quantity are not for a head that bounds another one; None where they are the same."""
    if quantity.casefold() == wanted.casefold():
        return None
    return (
        f"the labels count as {quantity}, and the head bounds another quantity ({wanted}); say so if they are the same "
        f"(--quantity {wanted!r}), or use another head."
    )


def same_quantity(records: Iterable[Record], quantity: str, wanted: str) -> Iterator[Record]:
    """The records, until the first that has a label of another quantity than is wanted: :class:`LabelError`."""
    other = other_quantity(quantity, wanted)
    for record in records:
        if other is not None and record.energy_ev is not None:
            raise LabelError(other)
        yield record


def refused_labels(table: pd.DataFrame, quantity: str = TOTAL_ENERGY, wanted: str = TOTAL_ENERGY) -> Refused:
    """Find sources whose labels are no total energies (:func:`mace_bounds.structures.label_trouble`).

    Parameters
    ----------
    table : DataFrame
        Rows with the columns :data:`LABEL_COLUMNS`. Sources with fewer than eight labels are judged together.
    quantity, wanted : str
        What the labels are, in the user's words, and what the head bounds: all are refused where that is another.

    Returns
    -------
    dict
        By source and kind of label (the key it came from) one sentence with the remedy; empty where all can be labels.
    """
    good = table[table["reason"].isna() & table["energy_ev"].notna()]
    other = other_quantity(quantity, wanted)
    if other is not None:
        return {
            (str(source), str(kind)): other
            for source, kind in zip(good["source"], good["label_kind"], strict=True)
        }
    groups = {
        (str(source), str(kind)): rows
        for (source, kind), rows in good.groupby(["source", "label_kind"], dropna=False, sort=False)
    }
    small = [rows for rows in groups.values() if len(rows) < MINIMUM_ROWS]
    pooled = _trouble(_joined(small), "the labels") if len(small) > 1 else None
    refused = {}
    for (source, kind), rows in groups.items():
        sentence = _trouble(rows, f"the labels of {source}") or (pooled if len(rows) < MINIMUM_ROWS else None)
        if sentence is not None:
            refused[source, kind] = sentence
    return refused


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts)


def _trouble(rows: pd.DataFrame, whose: str) -> str | None:
    rows = rows.iloc[:: -(-len(rows) // _ENOUGH)]
    counts = element_counts(rows["elements"].tolist(), rows["counts"].tolist())
    label, model, fixed = (
        rows[name].to_numpy(dtype=np.float64) for name in ("energy_ev", "energy_model_ev", "fixed_energy_ev")
    )
    trouble = label_trouble(label, model, counts, fixed if np.isfinite(fixed).all() else None)
    return None if trouble is None else trouble.sentence(whose)


def refused_rows(table: pd.DataFrame, refused: Refused, energy: str = "energy_ev") -> NDArray[np.object_]:
    """The sentence for each row whose label is refused, None for the others, shape (n,).

    Parameters
    ----------
    table : DataFrame
        With the columns ``source``, ``label_kind`` and ``energy``.
    refused : dict
        From :func:`refused_labels`.
    energy : str
        Name of the column of labels.
    """
    keys = zip(table["source"], table["label_kind"], table[energy].notna(), strict=True)
    sentences = np.empty(len(table), dtype=object)
    sentences[:] = [refused.get((str(source), str(kind))) if there else None for source, kind, there in keys]
    return sentences


def judged_labels(table: pd.DataFrame, refused: Refused) -> pd.DataFrame:
    """Rows of a store (or its columns :data:`LABEL_COLUMNS`) without the labels that are refused."""
    if not refused:
        return table
    sentences = refused_rows(table, refused)
    gone = np.array([sentence is not None for sentence in sentences], dtype=bool)
    return table.assign(
        energy_ev=np.where(gone, np.nan, table["energy_ev"].to_numpy(dtype=np.float64)),
        label_reason=np.where(gone, sentences, table["label_reason"].to_numpy(dtype=object)),
    )


def without_refused(rows: FeatureRows, refused: Refused) -> FeatureRows:
    """The rows without the labels that are refused; ``label_reason`` says why."""
    return FeatureRows(judged_labels(rows.table, refused), rows.features, rows.atoms) if refused else rows


def checked_labels(
    rows: FeatureRows, quantity: str = TOTAL_ENERGY, wanted: str = TOTAL_ENERGY
) -> FeatureRows:
    """The rows without labels that are refused (:func:`refused_labels`), for what needs labels.

    Raises
    ------
    LabelError
        If none is left of those that were there, with the reasons.
    """
    refused = refused_labels(rows.table, quantity, wanted)
    out = without_refused(rows, refused)
    n_left = len(out.labelled().table)
    require_labels(refused, n_left)
    reasons = out.scored().table["label_reason"].dropna()
    if not n_left and len(reasons):
        raise LabelError(f"no label can be used: {reasons_in_short([str(reason) for reason in reasons])}")
    return out


def require_labels(refused: Refused, n_left: int) -> None:
    """Raise :class:`LabelError` with the reason if every label was refused."""
    if refused and not n_left:
        first = next(iter(refused.values()))
        raise LabelError(
            first.rstrip(".") + (" (and likewise other sources)." if len(set(refused.values())) > 1 else ".")
        )


def label_summary(table: pd.DataFrame, energy: str = "energy_ev") -> dict[str, Any]:
    """Count labels: ``taken`` by the key or kind, ``refused`` by the reason, and rows ``without`` any.

    Parameters
    ----------
    table : DataFrame
        With the columns ``label_kind``, ``label_reason`` and ``energy``.
    energy : str
        Name of the column of labels.
    """
    there = table[energy].notna()
    reasons = table["label_reason"].notna() & ~there
    taken = Counter(str(kind) for kind in table.loc[there, "label_kind"])
    refused = Counter(str(reason) for reason in table.loc[reasons, "label_reason"])
    return {
        "taken": dict(taken.most_common()),
        "refused": dict(refused.most_common()),
        "without": int((~there & ~reasons).sum()),
    }


def label_sentences(summary: dict[str, Any]) -> list[str]:
    """What :func:`label_summary` counted, for people: one sentence on the labels taken, one for each reason."""
    taken, refused = summary["taken"], summary["refused"]
    kinds = ", ".join(f"{n:,} from {kind}" for kind, n in list(taken.items())[:_SHOWN])
    more = f", {sum(list(taken.values())[_SHOWN:]):,} from others" if len(taken) > _SHOWN else ""
    n_refused = sum(refused.values())
    without = f"; {summary['without']:,} structures have none" if summary["without"] and taken else ""
    lines = [
        f"labels: {kinds + more or 'none'}"
        + (f"; {n_refused:,} refused" if n_refused else "")
        + without
        + "."
    ]
    lines += [f"{n:,} refused: {reason}" for reason, n in list(refused.items())[:_SHOWN]]
    if len(refused) > _SHOWN:
        lines.append(f"{len(refused) - _SHOWN} further reasons are in the column label_reason.")
    return lines
