"""Key, address, and what happens without the client."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.mp_server import KEY
from mace_bounds.errors import SourceError
from mace_bounds.materials_project import Connection, download, preview

WITHOUT_CLIENT = """
import sys
for name in ("mp_api", "emmet", "emmet.core", "requests", "urllib3"):
    sys.modules[name] = None
from mace_bounds.materials_project import download, is_query, parse_query
assert is_query("mp:Li-Fe-O") and str(parse_query("mp:Li-Fe-O")) == "mp:chemsys=Fe-Li-O"
"""


def test_the_key_never_shows(monkeypatch):
    for key in ("0" * 31, "0" * 31 + "-", "0" * 31 + "é"):
        with pytest.raises(SourceError, match="32 letters and digits") as caught:
            Connection(key).key()
        assert key not in str(caught.value)
    monkeypatch.setenv("MP_API_KEY", KEY)
    assert Connection().key() == KEY
    assert Connection("f" * 32 + "\n").key() == "f" * 32


def test_the_address_has_one_slash_at_its_end(monkeypatch):
    monkeypatch.delenv("MP_API_ENDPOINT", raising=False)
    assert Connection().address() == "https://api.materialsproject.org/"
    monkeypatch.setenv("MP_API_ENDPOINT", " https://x.org/api ")
    assert Connection().address() == "https://x.org/api/"
    assert Connection(endpoint="http://y/").address() == "http://y/"
    with pytest.raises(SourceError, match="does not begin with https://"):
        Connection(endpoint="y.org").address()


@pytest.mark.parametrize("verb", [download, preview])
def test_without_the_client_one_sentence_says_how_to_get_it(verb, tmp_path, monkeypatch):
    from mace_bounds.materials_project import connection

    monkeypatch.setattr(connection, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r'; run pip install "mace-bounds\[mp\]"\.$'):
        verb("mp:NaCl", tmp_path / "out.jsonl", Connection(KEY))
    assert list(tmp_path.iterdir()) == []


def test_queries_are_read_without_the_client():
    subprocess.run([sys.executable, "-c", WITHOUT_CLIENT], check=True, timeout=120)
