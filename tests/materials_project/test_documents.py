"""The whole database: the client's own bulk path, as far as it goes without the public bucket.

The table is made as the client makes it (the documents' own Arrow schema, one folder a version, Delta log), in
the folder where the client looks first; fetching it from the bucket is the client's and is not tested here.
"""

from __future__ import annotations

import gzip
import json

import pytest
from pymatgen.core import Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from helpers.mp_server import KEY, Project, document_of, library, serving
from mace_bounds.errors import SourceError
from mace_bounds.materials_project import Connection, download
from mace_bounds.structures import read


def row_of(document, version):
    """One document through the database's own model."""
    from emmet.core.thermo import ThermoDoc

    (entry,) = document["entries"].values()
    structure = Structure.from_dict(entry["structure"])
    derived = ("nsites", "volume", "chemsys", "formula_pretty", "symmetry", "origins")
    fields = {k: v for k, v in document.items() if k not in derived}
    model = ThermoDoc.from_structure(meta_structure=structure, **fields)
    return {"version": version, **model.model_dump(context={"format": "arrow"})}


def write_table(folder, rows):
    """Write the table as ``mp_api`` does after fetching it."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import Schema, convert_to_deltalake
    from emmet.core.arrow import arrowize
    from emmet.core.thermo import ThermoDoc

    schema = pa.schema(arrowize(ThermoDoc)).insert(0, pa.field("version", pa.string()))
    partitions = pa.schema([pa.field("version", pa.string())])
    ds.write_dataset(
        pa.Table.from_pylist(rows, schema=schema),
        base_dir=str(folder),
        format="parquet",
        partitioning=ds.partitioning(partitions, flavor="hive"),
    )
    convert_to_deltalake(str(folder), partition_by=Schema.from_arrow(partitions), partition_strategy="hive")


@pytest.fixture
def documents():
    return library()[::9] + library()[-4:]


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("MPRESTER_LOCAL_DATASET_CACHE", str(tmp_path / "datasets"))
    return tmp_path / "datasets" / "build" / "collections" / "thermo"


@pytest.mark.slow
def test_the_whole_database_comes_from_the_clients_table(documents, table, tmp_path):
    old = document_of({**documents[0]["entries"]["GGA+U"], "entry_id": "mp-1", "energy": -11.0})
    write_table(
        table, [row_of(old, "2024-01-01"), *(row_of(document, "2025-09-25") for document in documents)]
    )
    project, told = Project(documents), []
    with serving(project) as endpoint:
        result = download(
            "mp:all", tmp_path / "all", Connection(KEY, endpoint), progress=lambda *n: told.append(n)
        )
        small = download("mp:nsites=4", tmp_path / "small", Connection(KEY, endpoint))
    assert not project.searches
    wanted = [d for d in documents if d["thermo_type"] == "GGA_GGA+U"]
    assert len(wanted) < len(documents)
    assert told[-1] == (len(wanted), len(wanted))
    records = list(read(result.path))
    assert len(records) == len(wanted)
    for record, document in zip(records, wanted, strict=True):
        ((run_type, source),) = document["entries"].items()
        assert (record.energy_ev, record.label_reason) == (source["energy"], None)
        assert record.run_type == run_type
        assert record.id == f"{document['material_id']}-{run_type}"
        assert record.crystal.positions.tolist() == [site["xyz"] for site in source["structure"]["sites"]]
    assert sum(record.flags == ("licence_by_nc",) for record in records) == 1
    first = json.loads(gzip.decompress(result.path.read_bytes()).splitlines()[0])
    entry = ComputedStructureEntry.from_dict(first)
    assert entry.uncorrected_energy == wanted[0]["entries"]["GGA+U"]["energy"]
    assert entry.correction == pytest.approx(-0.7)
    assert small.summary["counts"]["structures"] == sum(d["nsites"] <= 4 for d in wanted)


def test_a_table_of_something_else_is_one_sentence(table, tmp_path):
    import pyarrow as pa
    from deltalake import write_deltalake

    table.mkdir(parents=True)
    write_deltalake(str(table), pa.table({"colour": ["red"]}))
    with (
        serving(Project([])) as endpoint,
        pytest.raises(SourceError, match="the client's table holds colour and no"),
    ):
        download("mp:all", tmp_path / "all", Connection(KEY, endpoint))
