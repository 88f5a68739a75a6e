"""``mace-bounds heads``: which heads are here, and what they cover."""

from __future__ import annotations

from mace_bounds.cli import console as _console
from mace_bounds.cli.options import JsonOption


def heads(as_json: JsonOption = False) -> None:
    """List the heads that are found by themselves: shipped ones, and those in your own folder."""
    from mace_bounds._io import heads_folder
    from mace_bounds.bounds import list_heads

    cards = list_heads()
    if as_json:
        _console.write_json([{**card.__dict__, "path": str(card.path)} for card in cards])
        return
    if cards:
        view = _console.plain_table(
            "head", "model", "weights", "rows", "measured coverage", "folder", right=["rows"]
        )
        for card in cards:
            covered = ", ".join(
                f"{100 * float(level):g} %: {100 * share:.1f}" for level, share in card.coverage.items()
            )
            where = "shipped" if card.shipped else str(card.path)
            view.add_row(
                card.name, card.model, card.model_digest[:12], f"{sum(card.rows.values()):,}", covered, where
            )
        _console.out().print(view)
    else:
        _console.out().print("No heads found.")
    _console.note(f"your own heads are looked for in {heads_folder()} (or in $MACE_BOUNDS_HEADS)")
