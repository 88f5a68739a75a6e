"""``mace-bounds models``: which models can be named, which are here, which have a head."""

from __future__ import annotations

from mace_bounds.cli import console as _console
from mace_bounds.cli.options import JsonOption


def models(as_json: JsonOption = False) -> None:
    """List the models that can be named: mini, and the ones that mace downloads once."""
    from mace_bounds.backbones import list_models
    from mace_bounds.bounds import list_heads

    cards = list_heads()
    rows = [
        {**model.__dict__, "heads": [card.name for card in cards if card.model == model.name]}
        for model in list_models()
    ]
    if as_json:
        _console.write_json(rows)
        return
    view = _console.plain_table("model", "where", "heads", "what it is")
    for row in rows:
        where = {True: "[green]here[/green]", False: "[dim]downloaded on first use[/dim]"}[bool(row["here"])]
        heads = ", ".join(str(head) for head in row["heads"]) or "[dim]none yet[/dim]"
        view.add_row(f"[bold]{row['name']}[/bold]", where, heads, f"[dim]{row['description']}[/dim]")
    _console.out().print(view)
    _console.note(
        "any other MACE model: --model PATH; a head for a model: mace-bounds features, then mace-bounds fit"
    )
