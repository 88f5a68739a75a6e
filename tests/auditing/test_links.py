"""Links of entries."""

import pytest

from mace_bounds.auditing.links import entry_url

PAGE = "https://next-gen.materialsproject.org/materials/"


@pytest.mark.parametrize(
    "name, page",
    [
        ("mp-149", "mp-149"),
        ("mvc-5373", "mvc-5373"),
        ("mp-149-GGA+U", "mp-149"),
        ("mp-aaaaabcd", "mp-aaaaabcd"),
    ],
)
def test_ids_of_the_materials_project_lead_to_their_page(name, page):
    assert entry_url(name) == PAGE + page


@pytest.mark.parametrize(
    "name", ["wbm-1-2", "agm001", "mp-149.cif", "mp-149:3", 'mp-1"><script>', "", "xmp-149"]
)
def test_other_ids_are_no_links(name):
    assert entry_url(name) is None
