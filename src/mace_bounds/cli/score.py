"""``mace-bounds score``: bounds for a few structures, on the screen or for a program."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mace_bounds.calibration import CalibratedHead, FitConfig
from mace_bounds.cli import console
from mace_bounds.cli.options import BOUNDS_OPTIONS, BoundsOptions, FilesArgument, only, takes
from mace_bounds.cli.output import Output
from mace_bounds.cli.views import print_bounds
from mace_bounds.errors import SourceError
from mace_bounds.fitting import PredictionTable
from mace_bounds.structures import Record, usable

if TYPE_CHECKING:
    import pandas as pd

    from mace_bounds.bounds import Explanation

ColumnsOption = Annotated[
    Literal["basic", "all"] | None,
    typer.Option(
        "--columns",
        help="Columns of all formats but the table for the screen: those that a person reads, or all. "
        "Default: all, in markdown basic.",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a service (mace-bounds serve) instead of a model here; --head is one of its heads. An API key is "
        "taken from $MACE_BOUNDS_KEY.",
    ),
]


@takes(
    options=BOUNDS_OPTIONS,
    output=Output,
    predictions=PredictionTable,
    known=only(FitConfig, "quantity", "trained_on"),
)
def score(
    files: FilesArgument,
    columns: ColumnsOption = None,
    server: ServerOption = None,
    *,
    options: BoundsOptions,
    output: Output,
    predictions: PredictionTable,
    known: FitConfig,
) -> None:
    """Bound the DFT energy of crystals: the model's energy and an interval.

    The interval holds the DFT energy for the stated share of structures like those of the head's data. Exit code 0 if
    at least one structure was scored, 1 if none was.
    """
    from mace_bounds.bounds import OF_CRYSTALS, unscored_table

    kind = output.kind(crystals=True)
    if columns and kind == "table":
        raise SourceError("--columns does not change the table for the screen; add --format or --output.")
    source, holds_crystals = files[0] if len(files) == 1 else files, kind in OF_CRYSTALS
    kept: list[Record] = []
    head: CalibratedHead | None = None
    explanation: Explanation | None = None
    if server is not None:
        if options.model is not None or predictions.predictions is not None:
            raise SourceError("with --server the service has the model; leave out --model and --predictions.")
        kept = list(options.extract.read(source)) if holds_crystals else []
        table = _from_service(server, files, options)
    else:
        energies = predictions.by_id()
        # a source that names nothing, or holds nothing, is answered before the model is loaded
        any_usable, structures = usable(options.extract.read(source))
        kept = list(structures) if holds_crystals or not any_usable else []
        if not any_usable:
            table = unscored_table(kept)
        else:
            predictor = options.predictor(quantity=known.quantity, trained_on=known.trained_on)
            console.note_models(predictor, given=energies is not None)
            if predictor.note and kind != "table":  # the table has it
                console.note(f"note: {predictor.note}")
            head = predictor.head
            first = list(islice(structures, 2)) if kind == "table" else []
            if len(first) == 1:
                table, found = predictor.predict_one(first[0], energies=energies)
                explanation = None if isinstance(found, str) else found
            else:
                table = predictor.predict(kept or chain(first, structures), energies=energies)
    if kind == "table":
        print_bounds(table, head, options.level, explanation)
    else:
        basic = (columns or ("basic" if kind == "markdown" else "all")) == "basic"
        output.write(table, kind, kept, basic=basic)
    console.note_labels(table[table["reason"].isna()], "energy_dft_ev")
    console.note_failures(table)
    if table["reason"].notna().all():
        raise typer.Exit(1)


def _from_service(server: str, files: list[str], options: BoundsOptions) -> pd.DataFrame:
    """Rows of a service."""
    from mace_bounds.client import Client

    with Client(server) as client:
        return client.score(files, level=options.level, head=options.head)
