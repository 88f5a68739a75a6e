"""What is said of structures that the model may have been trained on: never that they are new to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mace_bounds.bounds import detailed_table
from mace_bounds.features import FeatureStore
from mace_bounds.fitting.card import head_card
from mace_bounds.fitting.exposure import NEW_TO_HEAD, UNSEEN, TrainingExposure
from mace_bounds.fitting.measured import evaluation_subset, labelled, sentence

NEITHER = "of compositions that neither the head nor the model's own training has seen"
NEW = "of compositions that the head has not used"
NOT_KNOWN = "which of them the model's own training has seen is not known here"


def rows_of(store, head):
    return labelled(detailed_table(FeatureStore(store).read(), head, 0.9, None), head.levels)


@pytest.fixture(scope="module")
def rows(tiny_store, tiny_fit):
    """Every labelled row, with its bounds by a head that keeps what its model was trained on."""
    return rows_of(tiny_store, tiny_fit.head)


@pytest.fixture(scope="module")
def unknown(tiny_fit):
    """The head, made for a model without record of its training."""
    provenance = {**tiny_fit.head.provenance, "training_compositions_known": False}
    return replace(tiny_fit.head, provenance=provenance, training_compositions=None)


@pytest.fixture(scope="module")
def unknown_rows(tiny_store, unknown):
    """Every labelled row, with its bounds by that head."""
    return rows_of(tiny_store, unknown)


def counts(rows):
    return {str(k): int(v) for k, v in rows.table["seen_in"].value_counts().items()}


def test_the_sentence_does_not_promise_new_compositions(rows, unknown_rows, tiny_fit, unknown):
    seen_in, unknown_in = counts(rows), counts(unknown_rows)
    assert unknown_in["unknown"] == seen_in["unseen"] + seen_in["model_training"] > seen_in["unseen"] >= 30
    assert "unseen" not in unknown_in
    known = sentence(evaluation_subset(rows, tiny_fit.head), seen_in, tiny_fit.head)
    assert NEITHER in known
    assert NOT_KNOWN not in known
    text = sentence(evaluation_subset(unknown_rows, unknown), unknown_in, unknown)
    assert f"{unknown_in['unknown']:,} labelled structures {NEW}; {NOT_KNOWN}" in text
    assert NEITHER not in text
    few = replace(unknown_rows, table=unknown_rows.table.head(40).reset_index(drop=True))
    assert counts(few)["unknown"] < 30
    text = sentence(evaluation_subset(few, unknown), counts(few), unknown)
    n_new = counts(few)["unknown"]
    assert text.startswith(f"all 40 labelled structures, of which only {n_new} are {NEW}")


def test_the_rows_go_by_the_name_of_what_is_known(rows, unknown_rows, tiny_fit, unknown):
    assert evaluation_subset(rows, tiny_fit.head).title == "unseen compositions"
    assert evaluation_subset(unknown_rows, unknown).title == "not used by the head"
    assert evaluation_subset(rows, unknown).title == "unseen compositions"  # said since it was made


def test_the_card_does_not_promise_it_either(tiny_fit, unknown):
    known, text = (head_card("x", head, tiny_fit.coverage) for head in (tiny_fit.head, unknown))
    assert "nor the calibration of the head and the model's own training have seen" not in known
    assert "neither the head's fit and calibration nor the model's own training has seen" in known
    assert NOT_KNOWN in text
    assert "**Which of these compositions the model was trained on is not known here" in text
    assert "too narrow for new crystals" in text
    assert "nor the model's own training has seen" not in text


@pytest.mark.parametrize(
    ("exposure", "subset", "clause", "warning"),
    [
        (TrainingExposure(known=True, n=40), UNSEEN, "", ""),
        (TrainingExposure(known=False, n=40), NEW_TO_HEAD, NOT_KNOWN, "is not known here"),
        (TrainingExposure(True, True, n=40), NEW_TO_HEAD, "none of them have", ""),
        (
            TrainingExposure(True, True, n=1040, n_in_training=1007),
            NEW_TO_HEAD,
            "1,007 of them have",
            "1,007 of the 1,040",
        ),
        (
            TrainingExposure(True, True, n=40, n_in_training=40),
            NEW_TO_HEAD,
            "all of them have",
            "40 of the 40",
        ),
        (
            TrainingExposure(False, True, published=True, n=40),
            NEW_TO_HEAD,
            "the model that published the energies was trained on",
            "the model that published the energies was trained on",
        ),
    ],
)
def test_every_case_has_its_words(exposure, subset, clause, warning):
    assert exposure.evaluation_subset == subset
    assert clause in exposure.clause()
    assert bool(clause) == bool(exposure.clause())
    assert warning in exposure.warning()
    assert bool(warning) == bool(exposure.warning())
    assert exposure.sentence("tiny").endswith(".")


def test_exposure_is_read_from_a_heads_provenance(tiny_fit, whole_fit):
    plain, whole = (TrainingExposure.of_head(fit.head.provenance) for fit in (tiny_fit, whole_fit))
    assert plain == TrainingExposure(known=True, n=tiny_fit.splits["test"])
    n_known = whole_fit.head.provenance["test_rows_in_training"]
    assert whole == TrainingExposure(True, True, n=whole_fit.splits["test"], n_in_training=n_known)
