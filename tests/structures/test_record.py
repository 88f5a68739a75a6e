"""A record is a structure or the reason why it is none."""

from __future__ import annotations

import pytest

from mace_bounds.structures import Record


def test_a_failed_record_has_a_reason_and_nothing_to_score():
    record = Record.failed("because", id="x", source="file")
    assert (record.id, record.source, record.reason, record.crystal) == ("x", "file", "because", None)
    assert (record.energy_ev, record.label_reason, record.flags) == (None, None, ())


def test_labels_and_flags_are_named_where_a_record_is_made():
    with pytest.raises(TypeError):
        Record("x", "file", None, -1.0)
