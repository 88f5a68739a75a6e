"""The Materials Project as a source: queries, download with the label guard, cache.

Importing it needs nothing but this package; the client (extra ``mp``) is imported when a server is asked.
"""

from mace_bounds.materials_project.connection import KEY_ADDRESS, Connection
from mace_bounds.materials_project.downloading import (
    Download,
    QueryPreview,
    cache_path,
    cached,
    cached_path,
    download,
    finished,
    preview,
)
from mace_bounds.materials_project.guard import check_entry, entry_of
from mace_bounds.materials_project.query import Query, is_query, parse_query, with_subsystems

__all__ = [
    "KEY_ADDRESS",
    "Connection",
    "Download",
    "Query",
    "QueryPreview",
    "cache_path",
    "cached",
    "cached_path",
    "check_entry",
    "download",
    "entry_of",
    "finished",
    "is_query",
    "parse_query",
    "preview",
    "with_subsystems",
]
