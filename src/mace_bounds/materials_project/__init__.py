"""The Materials Project as a source: queries, download with the label guard, cache."""

from mace_bounds.materials_project.cache import (
    cache_path,
    cached,
)
from mace_bounds.materials_project.downloading import (
    PAGE,
    Download,
    download,
    finished,
)
from mace_bounds.materials_project.guard import (
    check_entry,
    entry_of,
)
from mace_bounds.materials_project.preview import (
    Look,
    look,
)
from mace_bounds.materials_project.query import (
    Query,
    is_query,
    parse_query,
)

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
