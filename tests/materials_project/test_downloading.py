"""The real client against a Materials Project of our own on the loopback interface."""

from __future__ import annotations

import gzip
import json

import pytest

from helpers.mp_server import KEY, QUICK, Project, document_of, entry, ids, serving
from mace_bounds.errors import NothingFound, SourceError
from mace_bounds.materials_project import Connection, cache_path, cached, download
from mace_bounds.structures import read


def expected(documents, wanted):
    pbe = (d for d in documents if d["thermo_type"] == "GGA_GGA+U")
    return [d["material_id"] for d in pbe if wanted(d, set(d["chemsys"].split("-")))]


def test_distances_from_the_hull_come_along(fetch, documents):
    told = {record.id: record.hull_distance_ev_per_atom for record in read(fetch("mp:within=Li-Fe-O").path)}
    wanted = {f"{d['material_id']}-{d['energy_type']}": d["energy_above_hull"] for d in documents}
    assert told == {name: wanted[name] for name in told}
    assert len(set(told.values())) == 20


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("mp:Li-Fe-O", lambda _d, s: s == {"Li", "Fe", "O"}),
        ("mp:Li-Fe-O,Na-Cl", lambda _d, s: s in ({"Li", "Fe", "O"}, {"Na", "Cl"})),
        ("mp:Fe-*", lambda _d, s: len(s) == 2 and "Fe" in s),
        ("mp:within=Li-Fe-O", lambda _d, s: s <= {"Li", "Fe", "O"}),
        ("mp:elements=Li,Fe", lambda _d, s: s >= {"Li", "Fe"}),
        ("mp:NaCl", lambda _d, s: s == {"Na", "Cl"}),
        ("mp:mp-3,mp-21,mp-1", lambda d, _s: d["material_id"] in ("mp-1", "mp-3", "mp-21")),
        ("mp:hull=0.01..0.05", lambda d, _s: 0.01 <= d["energy_above_hull"] <= 0.05),
        ("mp:Li-Fe-O,nsites=6..8", lambda d, s: s == {"Li", "Fe", "O"} and d["nsites"] == 6),
    ],
)
def test_every_kind_of_query_brings_what_it_says_once(fetch, project, documents, query, wanted):
    result = fetch(query)
    found = expected(documents, wanted)
    assert len(found) > 1
    assert sorted(ids(result.path)) == sorted(found)
    assert result.summary["counts"]["structures"] == len(found)
    assert {search["thermo_types"] for search in project.searches} == {"GGA_GGA+U"}
    assert not any(result.path.parent.glob(".*"))  # no pages left


def test_structures_labels_and_provenance(fetch, documents):
    result = fetch(page_size=1000)
    by_id = {d["material_id"]: d["entries"]["GGA+U"] for d in documents if d["chemsys"] == "Fe-Li-O"}
    records = list(read(result.path))
    assert len(records) == len(by_id) == 20
    for record in records:
        source = by_id[record.id.removesuffix("-GGA+U")]
        assert record.energy_ev == source["energy"]
        assert record.crystal.positions.tolist() == [site["xyz"] for site in source["structure"]["sites"]]
        assert (record.reason, record.label_reason, record.run_type) == (None, None, "GGA+U")
    summary = json.loads(result.summary_path.read_text())
    assert summary == result.summary
    assert (summary["query"], summary["database_version"]) == ("mp:chemsys=Fe-Li-O", "2025.09.25")
    assert "CC BY 4.0" in summary["licence"]
    assert summary["counts"] == {
        "documents": 20, "outside_nsites": 0, "structures": 20, "labelled": 20, "label_refused": 0
    }  # fmt: skip
    assert summary["versions"]["mp-api"]
    assert summary["started"] <= summary["finished"]
    assert KEY not in result.summary_path.read_text()
    assert [one.id for one in read(result.path.parent)] == [one.id for one in records]  # no row more


def test_a_server_that_ignores_the_thermo_type_does_not_poison_the_labels(project, fetch):
    wrong = [
        document_of(entry("mp-801", "Cl-Cs"), thermo_type="GGA_GGA+U_R2SCAN"),
        document_of(entry("mp-802", "Cl-Cs", correction=-1.0)),
        document_of(entry("mp-803", "Cl-Cs"), builder_meta={"license": "BY-NC"}),
    ]
    wrong[1]["entries"]["GGA"]["energy"] -= 1.0
    project.documents = [Everything(document) for document in wrong]
    result = fetch("mp:Cs-Cl")
    assert result.summary["counts"]["label_refused"] == 2
    assert [one["id"] for one in result.summary["label_refused"]] == ["mp-801", "mp-802"]
    assert result.summary["flags"] == {"licence_by_nc": 1}
    records = list(read(result.path))
    assert [record.energy_ev is None for record in records] == [True, True, False]
    assert all(record.crystal is not None for record in records)


class Everything(dict):
    """A document that says GGA_GGA+U when it is searched and something else when it is read."""

    def __getitem__(self, key):
        return "GGA_GGA+U" if key == "thermo_type" else super().__getitem__(key)


@pytest.mark.parametrize(
    "faults",
    [
        ["500"], ["", "502", "503", "504"], ["", "cut"], ["", "", "cut-chunk"], ["short"], ["", "", "short"],
        ["html", "", "html"], ["", "reset", "reset"], ["slow:0.7"], ["", "slow:0.7", "500", "cut"], ["slow:0.2"] * 3,
        ["", "429:0", "429:junk"],
    ],
)  # fmt: skip
def test_a_server_in_trouble_costs_time_only(fetch, project, undisturbed, faults):
    project.faults = list(faults)
    assert fetch().path.read_bytes() == undisturbed
    assert not project.faults


def test_a_rate_limit_of_hours_stops_with_the_time(fetch, project):
    project.faults = ["429:7200"]
    with pytest.raises(SourceError, match=r"asks to wait 7200 s \(Retry-After\); run the same command again"):
        fetch()


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_one_sentence_and_asked_once(fetch, project, status):
    key, project.refusal = "f" * 32, status
    with pytest.raises(
        SourceError, match=rf"status {status}\); get yours at https://.*MP_API_KEY\.$"
    ) as caught:
        fetch(api_key=key)
    assert key not in str(caught.value)
    assert len(project.searches) == 1


def test_the_key_is_the_argument_else_the_environment_else_pymatgens(fetch, monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.setitem(SETTINGS, "PMG_MAPI_KEY", None)
    with pytest.raises(
        SourceError, match=r"there is no key .*; get yours at https://.*materialsproject.org/api and set"
    ):
        fetch(api_key=None)
    with pytest.raises(SourceError, match="this one has 4 characters"):
        fetch(api_key="abcd")
    monkeypatch.setitem(SETTINGS, "PMG_MAPI_KEY", KEY)
    assert fetch(api_key=None, name="a").summary["counts"]["labelled"] == 20
    monkeypatch.setenv("MP_API_KEY", "0" * 32)
    with pytest.raises(SourceError, match="status 401"):
        fetch(api_key=None, name="b")
    monkeypatch.setenv("MP_API_KEY", KEY + "\n")
    assert fetch(api_key=None, name="c").fresh
    assert fetch(api_key=KEY, name="d").fresh


def test_the_endpoint_can_be_the_environments(project, tmp_path, monkeypatch):
    with serving(project) as endpoint:
        monkeypatch.setenv("MP_API_ENDPOINT", endpoint.rstrip("/"))
        assert download("mp:NaCl", tmp_path / "x", Connection(KEY, **QUICK)).summary["endpoint"] == endpoint
    with pytest.raises(SourceError, match="does not begin with https://"):
        download("mp:NaCl", tmp_path / "y", Connection(KEY, "ftp://x"))
    with pytest.raises(SourceError, match=r"in 4 tries \(a refused connection\)"):
        download("mp:NaCl", tmp_path / "y", Connection(KEY, **QUICK))  # nobody is there any more


def test_no_materials_project_at_the_address(project, tmp_path):
    with serving(project) as endpoint, pytest.raises(SourceError, match="correct MP_API_ENDPOINT"):
        download("mp:NaCl", tmp_path / "y", Connection(KEY, endpoint + "elsewhere", **QUICK))


def test_nothing_found_is_one_sentence_and_leaves_no_file(fetch, tmp_path):
    with pytest.raises(
        SourceError, match=r"version 2025\.09\.25 of the Materials Project holds nothing for mp:chemsys=Au-Pt"
    ):
        fetch("mp:Au-Pt")
    with pytest.raises(NothingFound, match="holds nothing"):
        fetch("mp:Li-Fe-O,nsites=1000..", name="other")
    assert not list(tmp_path.glob("*"))


def test_ids_that_are_not_there_are_named(fetch, project):
    summary = fetch("mp:mp-1,mp-99999,mp-2").summary
    project.documents = [{**one, "material_id": "mp-aaaaaaab"} for one in project.documents[:1]]
    renamed = fetch("mp:mp-aaaaaaab", name="renamed")
    assert "not_found" not in renamed.summary
    assert ids(renamed.path) == ["mp-1"]  # the same id in the database's other spelling
    assert (summary["counts"]["structures"], summary["counts"]["not_found"]) == (2, 1)
    assert summary["not_found"] == ["mp-99999"]


def test_a_query_is_a_source_that_is_downloaded_once(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MACE_BOUNDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MP_API_KEY", KEY)
    with serving(project) as endpoint:
        monkeypatch.setenv("MP_API_ENDPOINT", endpoint)
        records = list(read("mp:Li-Fe-O"))
        assert "downloading it into" in capsys.readouterr().err
        n = len(project.requests)
        assert [r.id for r in read("mp:Fe-O-Li")] == [r.id for r in records]
        assert len(project.requests) == n
        assert len(list(read(["mp:Li-Fe-O", "mp:NaCl"]))) == 20 + 7
    assert capsys.readouterr().err.count("downloading") == 1
    assert not cached("mp:Li-Fe-O").fresh
    assert cache_path("mp:Li-Fe-O").parent == tmp_path / "cache" / "materials-project"
    assert cache_path("mp:Li-Fe-O") != cache_path("mp:within=Li-Fe-O")
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(SourceError):
        read("mp:nonsense!")


def test_real_entries_come_through_unchanged(shared_data, tmp_path):
    if shared_data is None:
        pytest.skip("the folder of real data is not here")
    entries = json.loads(gzip.decompress((shared_data / "mp_entries.json.gz").read_bytes()))[::5]
    documents = [document_of(one) for one in entries]
    with serving(Project(documents, faults=["", "429:0", "cut", "", "500"])) as endpoint:
        connection = Connection(KEY, endpoint, page_size=50, backoff_s=0.01)
        result = download("mp:hull=0", tmp_path / "out", connection)
    assert result.summary["counts"]["labelled"] == len(entries) > 200
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(entries))
    direct = {record.id: record for record in read(path)}
    for record in read(result.path):
        twin = direct.pop(record.id.removesuffix("-" + record.run_type))
        assert (record.energy_ev, record.crystal.digest, record.run_type) == (
            twin.energy_ev, twin.crystal.digest, twin.run_type
        )  # fmt: skip
        assert set(record.flags) == set(twin.flags)
    assert not direct
