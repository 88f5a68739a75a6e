"""Text for screens."""

import html
import io
import os
import re
import subprocess
import sys

import markdown
from hypothesis import given, settings
from hypothesis import strategies as st

from mace_bounds.screen import SPELLED, markdown_text, prepare_streams, spell, visible


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_what_is_shown_is_one_line_without_control_characters_and_nothing_is_lost(text):
    shown = visible(text)
    assert shown.isprintable()
    escapes = shown.replace("\\", "\\\\") if text.isprintable() else shown
    assert len(escapes) >= len(text)
    if "\\" not in text:
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from(["ascii", "iso-8859-1", "iso-8859-9", "cp1252", "utf-8"]))
def test_every_encoding_can_hold_what_is_shown(text, encoding):
    visible(spell(visible(text), encoding)).encode(encoding)


def test_signs_are_spelled_out_where_an_encoding_lacks_them():
    assert spell("±5 Å − 3 …", "ascii") == "+/-5 A - 3 ..."
    assert spell("±5 Å − 3 …", "iso-8859-1") == "±5 Å - 3 ..."
    assert spell("é 岩", "ascii") == "\\xe9 \\u5ca9"


def test_streams_that_are_closed_or_narrow_can_be_written_to(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="iso-8859-1"))
    monkeypatch.setattr(sys, "stderr", None)
    prepare_streams()
    print("±1 −2 岩")
    sys.stdout.flush()
    assert raw.getvalue() == "±1 -2 \\u5ca9\n".encode("iso-8859-1")
    assert sys.stdout.errors == SPELLED
    os.fstat(2)


def test_the_c_locale_gets_ascii(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    prepare_streams()
    print("±1")
    sys.stdout.flush()
    assert raw.getvalue() == b"+/-1\n"


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab_*`[]()<>|&;!\\\x1b\u202e#.h:/"), min_size=1, max_size=20))
def test_names_are_text_in_markdown(name):
    shown = markdown.markdown(f"x {markdown_text(name)} y")
    assert html.unescape(re.fullmatch("<p>([^<]*)</p>", shown)[1]) == f"x {visible(name)} y"


SURROUNDINGS = (
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "",
        "PYTHONIOENCODING": "iso-8859-1",
        "TZ": "Pacific/Kiritimati",
        "TERM": "dumb",
    },
)


def test_locale_time_zone_and_terminal_change_no_file_and_nothing_on_the_screen_but_signs(tmp_path):
    source = tmp_path / "Ünïcode ıİ 岩.extxyz"
    source.write_text(
        '2\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 id="İ ± 岩"\nNa 0 0 0\nQq 1 1 1\n',
        "utf-8",
    )
    plain = {
        k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIO"))
    }
    started = []
    for place, changed in enumerate(({"LANG": "C.UTF-8"}, *SURROUNDINGS)):
        words = [
            sys.executable,
            "-m",
            "mace_bounds",
            "score",
            str(source),
            "-o",
            str(tmp_path / f"{place}.csv"),
        ]
        started.append(
            subprocess.Popen(words, env=plain | changed, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        )
    shown = [(*process.communicate(), process.returncode) for process in started]
    wanted = "İ ± 岩: 'Qq' is no chemical element; remove dummy atoms or correct the symbol.\n"
    assert shown[0] == (b"", wanted.encode(), 1)
    for changed, (out, told, code) in zip(SURROUNDINGS, shown[1:], strict=True):
        encoding = changed.get("PYTHONIOENCODING", "ascii" if changed.get("LC_ALL") == "C" else "utf-8")
        assert (out, told.decode(encoding), code) == (b"", spell(wanted, encoding), 1), changed
    assert len({(tmp_path / f"{place}.csv").read_bytes() for place in range(len(shown))}) == 1
    assert "İ ± 岩" in (tmp_path / "0.csv").read_text("utf-8")
