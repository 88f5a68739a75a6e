"""``mace-bounds compare``: every method on the same splits, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mace_bounds.benchmark import CompareConfig
from mace_bounds.cli import console
from mace_bounds.cli.options import JsonOption, StoreArgument, TrainedModelOption, takes
from mace_bounds.cli.views import print_comparison
from mace_bounds.columns import records

ComparisonArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder of tables, plots and page; run it again to go on.")
]


@takes(config=CompareConfig)
def compare(
    store: StoreArgument,
    out: ComparisonArgument,
    model: TrainedModelOption = None,
    as_json: JsonOption = False,
    *,
    config: CompareConfig,
) -> None:
    """Compare mace-bounds with other error bars on the same splits.

    All methods get the same features, the same splits and the same conformal calibration. Leaves compare.csv,
    compare.json, splits.csv, groups.csv, flags.csv, seconds.csv, plots and index.html in OUT.
    """
    from mace_bounds.benchmark import compare as run

    with console.progress("splits", config.n_splits + config.system_folds) as update:
        report = run(store, out, config, model=model, progress=lambda done, _: update(done, 0))
    if as_json:
        console.write_json(
            {
                "command": "compare",
                "out": str(report.folder),
                "left_out": report.left_out,
                **{name: records(getattr(report, name)) for name in ("table", "flags", "seconds")},
            }
        )
    else:
        print_comparison(report)
