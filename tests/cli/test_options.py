"""Options that commands share."""

import pytest
import typer

from mace_bounds.cli.options import parse_memory


@pytest.mark.parametrize(
    "text, size",
    [("512", 2**29), ("512MB", 2**29), ("2GB", 2**31), ("1.5 g", 1.5 * 2**30), ("2048KiB", 2**21)],
)
def test_sizes_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-5", "0", "100kB", "2 parsecs"])
def test_no_sizes_of_memory(text):
    with pytest.raises(typer.BadParameter, match="expected a size of 1MB or more"):
        parse_memory(text)
