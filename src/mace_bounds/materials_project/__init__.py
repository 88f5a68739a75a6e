"""The Materials Project as a source: queries, download with the label guard, cache."""

from mace_bounds.structures.materials_project._cache import cache_path, cached
from mace_bounds.structures.materials_project._download import PAGE, Download, download, finished
from mace_bounds.structures.materials_project._guard import check_entry, entry_of
from mace_bounds.structures.materials_project._look import Look, look
from mace_bounds.structures.materials_project._query import Query, is_query, parse_query

__all__ = [
    "PAGE",
    "Download",
    "Look",
    "Query",
    "cache_path",
    "cached",
    "check_entry",
    "download",
    "entry_of",
    "finished",
    "is_query",
    "look",
    "parse_query",
]
