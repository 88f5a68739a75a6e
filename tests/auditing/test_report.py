"""The page of an audit: its table is the bounds table, whatever the names; what it colours; what it keeps of many."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mace_bounds import AuditConfig, audit
from mace_bounds.auditing import report
from mace_bounds.auditing.folder import FOR_REPORT, AuditFolder, energies_name
from mace_bounds.auditing.report import LISTED, N_STATIC, listed_number, write_report
from mace_bounds.auditing.suspects import entry_url
from mace_bounds.errors import StoreError
from mace_bounds.features import ExtractSettings
from mace_bounds.fitting import sources_left_out
from mace_bounds.screen import visible
from mace_bounds.tables import read_table

PLAIN = AuditConfig(plots=False, extract=ExtractSettings(workers=1))
ODD = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "mp_entries__1",
    "0001",
    'a"b\u2028&amp;\u202e\x1b[2J',
    "{{ 7 * 7 }}",
    "mp-149-GGA+U",
    "Σ🙂" + 60 * "x",
]

LEFT_OUT_COLUMNS = list(sources_left_out({}).columns)


class Page(HTMLParser):
    """Tables as rows of the texts of their cells, by id; scripts as they are; ids and links of elements."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.scripts, self.ids, self.links, self.tags = {}, [], set(), [], set()
        self._table = self._cell = self._script = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.tags.add(tag)
        self.ids |= {about["id"]} if "id" in about else set()
        self.links += [about["href"]] if tag == "a" else []
        if tag == "table":
            self._table = self.tables.setdefault(about.get("id", len(self.tables)), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag == "script":
            self._script = []

    def handle_data(self, data):
        for kept in (self._cell, self._script):
            if kept is not None:
                kept.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1].append("".join(self._cell).strip())
            self._cell = None
        elif tag == "script":
            self.scripts.append("".join(self._script))
            self._script = None


def made_bounds(n, ids=None, seed=0):
    rng = np.random.default_rng(seed)
    half, error = 100 * np.exp(rng.normal(0, 1, n)), rng.normal(0, 60, n)
    error[::3] = np.nan
    table = pd.DataFrame(
        {
            "id": [f"id-{i}" for i in range(n)] if ids is None else ids,
            "formula": "Li2FeP2O7",
            "n_atoms": 4,
            "chemistry": "oxide",
            "energy_model_ev": rng.normal(-20, 3, n),
            "expected_error_mev_per_atom": rng.normal(0, 5, n),
            "lower_mev_per_atom": -half,
            "upper_mev_per_atom": half,
            "novelty": rng.uniform(0, 2, n),
            "error_mev_per_atom": error,
            "inside": [None if np.isnan(e) else bool(abs(e) <= h) for e, h in zip(error, half, strict=True)],
            "flags": ["extrapolates;unseen_pair" if i % 5 == 0 else "" for i in range(n)],
            "source": "a_b.cif",
            "reason": None,
        }
    )
    return table[list(FOR_REPORT)]


def page_of(folder, table, **more):
    for name in ("bounds.parquet", "bounds.csv"):
        AuditFolder(folder).write(name, table)
    about = {
        "source": "x/mp_entries.json.gz",
        "title": "mp_entries.json.gz",
        "settings": {"level": 0.95},
        "versions": {"mace-bounds": "0"},
        "model": {"name": "tiny", "digest": "0" * 64, "head": "default"},
        "head": {
            "name": "h",
            "digest": "1" * 64,
            "centre": "model",
            "scale": "constant",
            "rows": {},
            "quantity": "x",
            "promise": "Promised for every source.",
            "sources_left_out": {
                "columns": LEFT_OUT_COLUMNS,
                "lines": [["W<B>M", "768", "94.0 % at 95 %", "521", "0.95"]],
                "sentence": "Measured without the source.",
            },
        },
        "published": None,
        "warnings": [],
        "labels": {"sentences": []},
        "counts": dict.fromkeys(
            ("structures", "scored", "failed", "labelled", "suspect_labels", "extrapolating"), len(table)
        ),
        "flags": {},
        "failures": [],
        "measured_on": {"rows": None, "n": 0, "sentence": "no labels, so bounds only"},
        "suspects": {"n": 0},
        "atlas": None,
    }
    about["head"]["coverage_when_made"] = []
    return Page(write_report(folder, about | more).read_text(encoding="utf-8"))


def listing(page):
    data = json.loads(page.scripts[0])
    return data, pd.DataFrame(data["rows"], columns=data["columns"])


def test_the_table_of_the_page_is_the_bounds_table(tmp_path):
    table = made_bounds(120)
    table.loc[7, ["lower_mev_per_atom", "upper_mev_per_atom"]] = -np.inf, np.inf
    scored = ["energy_model_ev", "lower_mev_per_atom", "upper_mev_per_atom", "novelty", "error_mev_per_atom"]
    table.loc[9, scored] = np.nan
    table.loc[9, "reason"] = "two atoms in one place"
    page = page_of(tmp_path, table)
    data, told = listing(page)
    assert told["id"].tolist() == table["id"].tolist()
    assert told["source"].tolist() == table["source"].tolist()
    np.testing.assert_allclose(told["energy"].astype(float), table["energy_model_ev"] / 4, atol=5.1e-6)
    for name in ("lower", "upper", "error"):
        wanted = table[f"{name}_mev_per_atom"]
        np.testing.assert_allclose(told[name].astype(float), wanted, atol=0.0051)
    assert told["inside"].tolist() == [None if v is None else v for v in table["inside"]]
    assert told["flags"].fillna("").tolist() == table["flags"].tolist()
    assert told.loc[7, "width"] == "inf"  # JSON has no infinity
    assert told.loc[9, "reason"] == "two atoms in one place"
    head, *static = page.tables["structures-table"]  # without a script
    assert head == list(LISTED.values())
    assert len(static) == N_STATIC == data["pageRows"]
    assert static[0][0] == "id-0"
    assert static[7][5:8] == ["−∞", "∞", "∞"]
    assert static[9][-1] == "two atoms in one place"
    assert static[5][-1] == "extrapolates, unseen_pair"
    assert {row[-2] for row in static} == {"", "inside", "outside"}
    unlabelled = page_of(tmp_path, table.assign(error_mev_per_atom=np.nan, inside=None))
    assert unlabelled.tables["structures-table"][0] == [
        title for name, title in LISTED.items() if name not in ("error", "inside")
    ]
    assert {len(row) for row in unlabelled.tables["structures-table"]} == {len(LISTED) - 2}


@pytest.mark.parametrize(
    ("value", "name", "shown"),
    [
        (None, "width", ""),
        (12.345, "width", "12.3"),
        (-1234.5, "lower", "−1,234"),
        (-3.14159, "energy", "−3.142"),
    ],
)
def test_numbers_keep_their_digits(value, name, shown):
    assert listed_number(value, name) == shown


def test_no_name_breaks_out_of_the_page(tmp_path):
    table = made_bounds(len(ODD), ODD)
    table["formula"], table["chemistry"], table["source"] = ODD, ODD, ODD
    table["reason"] = [None, *ODD[1:]]
    page = page_of(tmp_path, table, title=ODD[0], source=ODD[1])
    data, told = listing(page)
    for name in ("id", "formula", "chemistry", "source"):
        assert told[name].tolist() == [visible(name) for name in ODD]
    assert [row[0] for row in page.tables["structures-table"][1:]] == [visible(name) for name in ODD]
    assert len(page.scripts) == 2  # data and code
    assert "img" not in page.tags
    assert "49" not in [row[0] for row in page.tables["structures-table"]]
    pattern = re.compile(data["entry"]["pattern"])
    for name in ODD:
        found = pattern.match(name)
        assert (data["entry"]["page"] + found[1] if found else None) == entry_url(name)


def test_of_very_many_structures_the_most_remarkable_are_kept(tmp_path, monkeypatch):
    assert report.MAX_ROWS_LISTED == 20_000
    monkeypatch.setattr(report, "MAX_ROWS_LISTED", 300)  # fewer in a test
    n = 500
    table = made_bounds(n)
    table.loc[n - 1, "novelty"] = 99.0
    table.loc[n - 2, ["lower_mev_per_atom", "upper_mev_per_atom"]] = -1e5, 1e5
    table.loc[n - 3, "error_mev_per_atom"] = 1e4
    page = page_of(tmp_path, table)
    _, told = listing(page)
    assert len(told) == 300
    assert {f"id-{n - k}" for k in (1, 2, 3)} <= set(told["id"])
    assert told["id"].is_unique
    places = told["id"].str.removeprefix("id-").astype(int)
    assert places.is_monotonic_increasing  # as in the source
    text = (tmp_path / "report.html").read_text()
    assert "This page holds 300 of them" in text
    assert f"{n:,} structures" in text


def test_the_promise_and_the_sources_left_out_are_shown(tmp_path):
    page = page_of(tmp_path, made_bounds(3))
    lines = [table for table in page.tables.values() if table[0] == LEFT_OUT_COLUMNS]
    assert lines == [[LEFT_OUT_COLUMNS, ["W<B>M", "768", "94.0 % at 95 %", "521", "0.95"]]]
    text = (tmp_path / "report.html").read_text()
    assert "Promised for every source." in text
    assert "Measured without the source." in text


def test_contents_and_files_lead_somewhere(tmp_path):
    page = page_of(tmp_path, made_bounds(3))
    inside = [link for link in page.links if link.startswith("#")]
    assert {"#structures", "#files", "#provenance"} <= set(inside)
    assert {link[1:] for link in inside} <= page.ids
    beside = {link for link in page.links if not link.startswith("#")}
    assert beside == {"bounds.csv", "bounds.parquet", "summary.json"}  # what is there, and what comes last
    assert "mp_entries.json.gz" in (tmp_path / "report.html").read_text()


def test_groups_are_coloured_and_a_large_composition_is_named_only_where_there_is_reason(tmp_path):
    rows = [
        ("all", "all", 0.95, False),
        ("element", "Fe", 0.80, False),
        ("element", "Mn", 0.50, True),
        ("element", "Si", 1.00, True),
    ]
    coverage = pd.DataFrame(rows, columns=["by", "group", "coverage", "significant"])
    coverage = coverage.assign(rows="unseen", level=0.95, coverage_low=0.4, coverage_high=0.9, n=68)
    coverage = coverage.assign(n_compositions=22, median_width_mev_per_atom=9.0)
    AuditFolder(tmp_path).write("coverage.csv", coverage)
    measured = {
        "rows": "unseen",
        "n": 102,
        "n_compositions": 22,
        "largest_composition": {"formula": "LiFePO4", "n": 68},
        "sentence": "s",
        "warning": "",
    }
    main = {"level": 0.95, "coverage": 0.95, "coverage_low": 0.9, "coverage_high": 0.98, "n": 102}
    more = {
        "measured_on": measured,
        "coverage": [main | {"median_width_mev_per_atom": 9.0}],
        "seen_in": {"unseen": 102},
    }
    page_of(tmp_path, made_bounds(3), **more)
    text = (tmp_path / "report.html").read_text()
    tones = re.findall(r'<td class="(\w*)">([\d.]+ %)</td>', text)
    assert tones == [("", "95.0 %"), ("low", "50.0 %"), ("", "80.0 %"), ("high", "100.0 %")]
    assert "LiFePO4 alone is 68 of the 102 structures" in text
    assert "102 structures of 22 compositions" in text
    measured["largest_composition"] = {"formula": "LiFePO4", "n": 20}
    page_of(tmp_path, made_bounds(3), **more)
    assert "LiFePO4 alone" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("mace_mpa_0_energy_ev", "mace_mpa_0"),
        ("MACE_energy", "MACE"),
        ("energy", "wbm_mpa"),
        ("energy_ev", "wbm_mpa"),
        ("m3gnet", "m3gnet"),
    ],
)
def test_published_energies_are_called_after_their_model(column, name):
    summary = {"model": {"name": "mini"}, "published": {"column": column, "file": "a/wbm_mpa.csv.gz"}}
    assert energies_name(summary) == name
    assert energies_name({"model": {"name": "mini"}, "published": None}) == "mini"


def test_another_audit_in_the_same_folder_is_refused(
    tiny_store, tiny_model_folder, tiny_fit, whole_fit, labelled_crystals, tmp_path
):
    out = tmp_path / "out"
    first = audit(tiny_store, out, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    other = r"holds the audit of .* by tiny \(\w{12}\) with the head .*, and this one is of .*; choose another folder"
    with pytest.raises(StoreError, match=other):
        audit(tiny_store, out, model=tiny_model_folder, head=whole_fit.folder, config=PLAIN)
    with pytest.raises(StoreError, match=other):
        audit(labelled_crystals[:3], out, model=tiny_model_folder, head=tiny_fit.folder, config=PLAIN)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == kept
    level = AuditConfig(level=0.9, plots=False)
    again = audit(tiny_store, out, model=tiny_model_folder, head=tiny_fit.folder, config=level)
    assert again.summary["coverage"] == first.summary["coverage"]
    titled = set(read_table(out / "bounds.parquet")["source"])
    assert set(again.summary["title"].split(", ")) <= titled  # not the name of the store
