"""The backbone of docs/dev/add-a-backbone.md, as it stands on that page; worker processes import it from here."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "dev" / "add-a-backbone.md"
_block = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
assert _block is not None
exec(compile(_block[1], str(PAGE), "exec"))


class Patient(PairBackbone):  # type: ignore[name-defined]  # noqa: F821 - the page defines it
    """The same, but it takes its time, so that there is a middle in which it can be stopped."""

    def extract(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.015)
        return super().extract(*arguments, **options)


__all__ = ["PairBackbone", "Patient"]  # noqa: F822
