"""Tables of published energies: read, matched by id, refused with the remedy."""

import random
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mace_bounds.errors import LabelError
from mace_bounds.features import FeatureRows
from mace_bounds.fitting.predictions import (
    NO_PREDICTION,
    check_predictions,
    read_predictions,
    with_predictions,
)

TABLE = pd.DataFrame(
    {"material_id": ["a", "b", "c"], "e_pred": [-8.0, -3.5, np.nan], "note": ["x", "y", "z"]}
)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "json"])
def test_every_format_gives_the_same_energies(tmp_path, kind):
    path = tmp_path / f"table.{kind}"
    writer = {"csv": "to_csv", "csv.gz": "to_csv", "parquet": "to_parquet", "json": "to_json"}[kind]
    getattr(TABLE, writer)(path)
    assert read_predictions(path, "e_pred").to_dict() == {"a": -8.0, "b": -3.5}


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_ids_are_text_as_they_are_written(tmp_path, kind):
    ids = ["0001", "1e5", "NA", "null", "1"]
    table = pd.DataFrame({"id": ids, "e": np.arange(5.0)})
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "json":
        table.to_json(path, orient="records")
    else:
        table.to_parquet(path)
    assert read_predictions(path, "e").to_dict() == dict(zip(ids, range(5), strict=True))


def test_ids_may_be_numbers_and_their_column_may_be_named(tmp_path):
    pd.DataFrame({"key": [1, 2], "e": [-1.0, -2.0]}).to_csv(tmp_path / "t.csv")
    assert read_predictions(tmp_path / "t.csv", "e", "key").to_dict() == {"1": -1.0, "2": -2.0}


@pytest.mark.parametrize(
    "table, column, said",
    [
        (TABLE, "energy", "column energy"),
        (TABLE.rename(columns={"material_id": "key"}), "e_pred", "--id-column"),
        (TABLE, "note", "holds no energies"),
        (pd.concat([TABLE, TABLE]), "e_pred", "the id a two or more energies"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, table, column, said):
    table.to_csv(tmp_path / "t.csv")
    with pytest.raises(LabelError, match=said):
        read_predictions(tmp_path / "t.csv", column)


@pytest.mark.parametrize(
    "name, content", [("t.csv", None), ("t.parquet", "no"), ("t.json", "{"), ("t.xls", "x")]
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(LabelError, match=r"cannot be read as a table|is a \.csv, \.parquet or \.json"):
        read_predictions(tmp_path / name, "e")


@pytest.mark.parametrize(
    "write",
    [
        lambda table, path: table.to_json(path + ".json"),
        lambda table, path: table.to_json(path + ".json", orient="index"),
        lambda table, path: table.to_json(path + ".json", orient="split"),
        lambda table, path: table.to_json(path + ".json", orient="records"),
        lambda table, path: table.to_json(path + ".json", orient="records", lines=True),
        lambda table, path: table.to_json(path + ".jsonl.gz", orient="records", lines=True),
        lambda table, path: table.set_index("id").to_json(path + ".json"),
        lambda table, path: table.set_index("id").to_json(path + ".json", orient="index"),
        lambda table, path: table.set_index("id").to_json(path + ".json", orient="split"),
        lambda table, path: table.set_index("id").to_json(path + ".json", orient="table"),
        lambda table, path: table.set_index("id").to_parquet(path + ".parquet"),
        lambda table, path: table.set_index("id").to_csv(path + ".csv.bz2"),
        lambda table, path: table.to_csv(path + ".csv.zip", index=False),
        lambda table, path: table.to_csv(path + ".tsv.xz", index=False, sep="\t"),
    ],
)
def test_every_shape_that_pandas_writes_keeps_the_ids(tmp_path, write):
    ids = ["0001", "1e5", "NA", "null", "None", "nan", "1_000", "True", "0x1A", "-0"]
    write(pd.DataFrame({"id": ids, "e": np.arange(10.0), "note": "x"}), str(tmp_path / "t"))
    (path,) = tmp_path.iterdir()
    assert read_predictions(path, "e").to_dict() == dict(zip(ids, range(10), strict=True))


def test_zstd_needs_no_other_package(tmp_path):
    data = pa.compress(TABLE.to_csv(index=False).encode(), codec="zstd", asbytes=True)
    (tmp_path / "t.csv.zst").write_bytes(data)
    assert read_predictions(tmp_path / "t.csv.zst", "e_pred").to_dict() == {"a": -8.0, "b": -3.5}


def test_counted_rows_are_no_ids(tmp_path):
    TABLE[["e_pred"]].to_json(tmp_path / "t.json")
    with pytest.raises(LabelError, match="no column of ids"):
        read_predictions(tmp_path / "t.json", "e_pred")


def test_nested_columns_and_foreign_metadata(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "e": [[1.0], [2.0]]}), tmp_path / "t.parquet")
    with pytest.raises(LabelError, match="holds lists"):
        read_predictions(tmp_path / "t.parquet", "e")
    table = pa.table({"id": ["a", "b"], "e": [1.0, 2.0]}).replace_schema_metadata({"pandas": "not JSON"})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_predictions(tmp_path / "t.parquet", "e").to_dict() == {"a": 1.0, "b": 2.0}


def test_damaged_tables_end_in_a_sentence(tmp_path):
    random_ = random.Random(7)
    TABLE.to_csv(tmp_path / "a.csv")
    for kind in ("csv.gz", "csv.xz", "csv.bz2", "csv.zip"):
        TABLE.to_csv(tmp_path / f"a.{kind}")
    for orient in ("records", "split", "index", "columns"):
        TABLE.to_json(tmp_path / f"{orient}.json", orient=orient)
    TABLE.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    TABLE.to_parquet(tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for _ in range(25):
            changed = bytearray(data)
            for _ in range(random_.randint(1, 6)):
                changed[random_.randrange(len(changed))] = random_.randrange(256)
            if random_.random() < 0.3:
                changed = changed[: random_.randrange(len(changed))]
            path.write_bytes(changed)
            with suppress(LabelError):  # nothing else
                assert np.isfinite(read_predictions(path, "e_pred")).all()


@pytest.fixture
def rows():
    table = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "n_atoms": [2, 1, 1, 4],
            "reason": [None, None, None, "broken"],
            "energy_ev": [-8.1, -3.4, -2.0, np.nan],
            "energy_model_ev": [-7.0, -3.0, -2.0, np.nan],
            "elements": [[11, 17], [29], [13], [8]],
            "counts": [[1, 1], [1], [1], [4]],
        }
    )
    return FeatureRows(table, np.arange(8.0).reshape(4, 2))


def test_published_energies_take_the_place_of_the_models(rows):
    out = with_predictions(rows, pd.Series({"b": -3.5, "a": -8.0, "z": 1.0}))
    np.testing.assert_array_equal(out.table["energy_model_ev"], [-8.0, -3.5, np.nan, np.nan])
    assert out.table["reason"].isna().tolist() == [True, True, False, False]
    assert out.table["reason"].tolist()[2:] == [NO_PREDICTION, "broken"]
    np.testing.assert_array_equal(out.features[:2], rows.features[:2])
    assert np.isnan(out.features[2]).all()
    assert rows.table["energy_model_ev"].iloc[0] == -7.0
    assert check_predictions(out, "e") == {"n": 2, "n_missing": 1}


def test_energies_per_atom_and_foreign_ids_are_refused(rows):
    per_atom = with_predictions(rows, pd.Series({"a": 8.0, "b": 3.5}))
    with pytest.raises(LabelError, match="not per atom"):
        check_predictions(per_atom, "e")
    with pytest.raises(LabelError, match="none of the structures' ids"):
        check_predictions(with_predictions(rows, pd.Series({"z": 1.0})), "e")
