"""The schema: text stays text, and every table can be written and read back."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.columns import BASIC, BOUNDS, GRADES, MEASURED, PROVENANCE, level_columns, names
from mace_bounds.errors import StoreError
from mace_bounds.flags import FLAGS, flag_names
from mace_bounds.tables import arrow_schema, read_table, records, stamped, typed, write_table

UNITS = {"ev": "eV", "mev_per_atom": "meV/atom", "ev_per_atom": "eV/atom", "a3": "Å³", "g_per_cm3": "g/cm³"}
IDS = ["0001", "1e5", "NA", "null", "nan", "True", "-0", "0x1F", "1_000", "é", 'a,"b"', "None", " 7", "∞"]


def a_table(ids) -> pd.DataFrame:
    n = len(ids)
    return typed(
        pd.DataFrame(
            {
                "id": ids,
                "formula": ["NaCl"] * n,
                "n_atoms": [2] * n,
                "energy_model_ev": np.linspace(-1, 1, n),
                "error_mev_per_atom": [np.nan, *range(n - 1)],
                "novel_atom": [None, *range(n - 1)],
                "inside": [None, *(k % 2 == 0 for k in range(n - 1))],
                "flags": [None, *["a;b"] * (n - 1)],
                "reason": [None] * n,
                "covered": np.arange(n),
            }
        )
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_text_that_looks_like_something_else_stays_text(suffix, tmp_path):
    table = a_table(IDS)
    write_table(table, tmp_path / f"t{suffix}", {"model": "mini"})
    back = read_table(tmp_path / f"t{suffix}")
    assert back["id"].tolist() == IDS
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert read_table(tmp_path / f"t{suffix}", ["id", "inside"]).columns.tolist() == ["id", "inside"]


TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


@given(st.lists(TEXT, min_size=1, max_size=6))
@settings(max_examples=25)
def test_any_printable_id_survives(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("ids")
    for suffix in (".parquet", ".csv", ".json"):
        write_table(a_table(ids), folder / f"t{suffix}")
        assert read_table(folder / f"t{suffix}")["id"].tolist() == ids


def test_a_parquet_file_tells_its_types_and_what_it_comes_from(tmp_path):
    import pyarrow.parquet as pq

    empty = a_table(IDS).assign(reason=None, flags=None, source=None)
    write_table(empty, tmp_path / "t.parquet", {"model": "mini", "model_digest": "ab"})
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert str(schema.field("source").type) == "string"  # a column without a value has its type all the same
    assert str(schema.field("n_atoms").type) == "int32"
    assert schema.metadata[b"model_digest"] == b"ab"


def test_names_are_unique_and_end_with_their_unit():
    columns = [*BOUNDS, *MEASURED, *level_columns([0.68, 0.995])]
    assert len(set(names(columns))) == len(columns)
    for column in columns:
        ending = next(
            (end for end in sorted(UNITS, key=len, reverse=True) if column.name.endswith(f"_{end}")), ""
        )
        assert column.unit == UNITS.get(ending, ""), column.name
        assert column.meaning.endswith("."), column.name
    assert names(level_columns([0.995])) == ["lower_99.5_mev_per_atom", "upper_99.5_mev_per_atom"]
    assert set(GRADES) < set(names(BOUNDS))


def test_every_flag_that_the_code_raises_is_explained():
    import mace_bounds

    raised = set()
    for path in __import__("pathlib").Path(mace_bounds.__file__).parent.rglob("*.py"):
        if path.name != "flags.py":
            raised |= {flag for flag in FLAGS if re.search(rf'"{flag}"', path.read_text())}
    assert raised == set(FLAGS)  # and none is explained that nothing raises


def test_flags_of_a_row():
    assert flag_names("a;b") == ["a", "b"]
    assert flag_names("") == flag_names(None) == flag_names(float("nan")) == []


def test_plain_records_are_json():
    row = records(a_table(["x", "y"]))[0]
    assert json.loads(json.dumps(row)) == row
    assert row["novel_atom"] is None
    assert row["inside"] is None


def test_stamps_do_not_replace_what_a_table_has():
    table = stamped(pd.DataFrame({"level": [0.5, 0.9]}), {"level": 0.95, "model": "mini"})
    assert table["level"].tolist() == [0.5, 0.9]
    assert table["model"].tolist() == ["mini", "mini"]
    assert set(names(PROVENANCE)) == {
        "model",
        "features_of",
        "model_digest",
        "head",
        "head_digest",
        "level",
        "quantity",
        "version",
    }


def test_the_basic_columns_are_columns_of_the_bounds_table():
    assert set(BASIC) <= set(names(BOUNDS)) == set(arrow_schema(BOUNDS).names)


def test_what_cannot_be_written_or_read_is_one_sentence(tmp_path):
    with pytest.raises(StoreError, match=r"use \.parquet, \.csv, \.tsv or \.json"):
        write_table(a_table(["x"]), tmp_path / "t.xlsx")
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(StoreError, match="cannot be read as a table"):
        read_table(tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == [tmp_path / "t.parquet"]
