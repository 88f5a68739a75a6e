"""What is said of a head whose model's training compositions are not known: never that they are new to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mace_bounds.bounds import detailed_table
from mace_bounds.features import FeatureStore
from mace_bounds.fitting.card import head_card
from mace_bounds.fitting.measured import headline, labelled, sentence

KNOWN, NEW = "of compositions that nothing was trained on", "of compositions that the head has not used"
NOT_KNOWN = "which of them the model's own training has seen is not known here"


@pytest.fixture(scope="module")
def rows(tiny_store, tiny_fit):
    """Every labelled row, with its bounds; a model without record of its training."""
    table = detailed_table(FeatureStore(tiny_store).read(), tiny_fit.head, 0.9, None)
    return labelled(table, tiny_fit.head.levels)


@pytest.fixture(scope="module")
def unknown(tiny_fit):
    """The head, made for such a model."""
    return replace(
        tiny_fit.head, provenance={**tiny_fit.head.provenance, "training_compositions_known": False}
    )


def test_the_sentence_does_not_promise_new_compositions(rows, tiny_fit, unknown):
    roles = {str(k): int(v) for k, v in rows.table["seen_in"].value_counts().items()}
    assert roles["unseen"] >= 30
    known, said = (sentence(headline(rows, head), roles, head) for head in (tiny_fit.head, unknown))
    assert KNOWN in known
    assert NOT_KNOWN not in known
    assert f"{roles['unseen']:,} labelled structures {NEW}; {NOT_KNOWN}" in said
    assert KNOWN not in said
    few = replace(rows, table=rows.table.head(40).reset_index(drop=True))
    counted = {str(k): int(v) for k, v in few.table["seen_in"].value_counts().items()}
    assert counted["unseen"] < 30
    said = sentence(headline(few, unknown), counted, unknown)
    assert said.startswith(f"all 40 labelled structures, of which only {counted['unseen']} are {NEW}")


def test_the_card_does_not_either(tiny_fit, unknown):
    known, said = (head_card("x", head, tiny_fit.coverage) for head in (tiny_fit.head, unknown))
    assert "that the model's own training has not seen either" in known
    assert f"**{NOT_KNOWN}: where it was trained on labels like these, the bounds are too narrow" in said
    assert "has not seen either" not in said
