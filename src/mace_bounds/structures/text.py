"""Text that came from outside, made safe to print on one line."""

from __future__ import annotations


def clean(text: object, limit: int = 200) -> str:
    """Return one printable line of at most ``limit`` characters (control characters become blanks)."""
    raw = str(text)[: 4 * limit]
    if not raw.isprintable():
        raw = "".join(c if c.isprintable() else " " for c in raw)
    line = " ".join(raw.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def sentence(error: BaseException, limit: int = 160) -> str:
    """Return what an exception of another library says, as one short clause."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = clean(error, limit).rstrip(" .")
    return text or type(error).__name__
