"""Text for screens."""

import html
import io
import os
import re
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
