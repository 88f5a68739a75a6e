"""The backbone of docs/dev/add-a-backbone.md, as it stands on that page; worker processes import it from here."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "dev" / "add-a-backbone.md"
_block = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
assert _block is not None
exec(compile(_block[1], str(PAGE), "exec"))

__all__ = ["PairBackbone"]  # noqa: F822 - the page defines it
