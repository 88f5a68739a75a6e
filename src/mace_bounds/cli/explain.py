"""``mace-bounds explain``: why the bounds of one structure are as wide as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mace_bounds.cli import console
from mace_bounds.cli.options import BOUNDS_OPTIONS, BoundsOptions, takes
from mace_bounds.cli.sheet import Part, Sheet
from mace_bounds.levels import percent
from mace_bounds.structures import help_text

if TYPE_CHECKING:
    from mace_bounds.bounds import Explanation

StructureArgument = Annotated[
    str, typer.Argument(metavar="STRUCTURE", help=f"A file with one structure ({help_text()}); - for stdin.")
]
ExplainFormatOption = Annotated[
    Literal["table", "json"], typer.Option("--format", "-f", help="table for the screen, json for programs.")
]
NeighboursOption = Annotated[
    int, typer.Option("--neighbours", min=1, max=1000, metavar="N", help="Nearest labelled crystals to name.")
]

_N_ATOMS = 5  # shown on the screen


@takes(options=BOUNDS_OPTIONS)
def explain(
    structure: StructureArgument,
    output_format: ExplainFormatOption = "table",
    neighbours: NeighboursOption = 5,
    *,
    options: BoundsOptions,
) -> None:
    """Say why a bound is as wide as it is: nearest labelled crystals, what drives its width, which atoms are new.

    The nearest crystals are those of the head's own data, with the errors that the model makes there. Exit code 1 if
    the structure cannot be scored.
    """
    structures: Any = options.extract.read(structure)
    table, explanation = options.predictor().predict_one(structures, n_neighbours=neighbours)
    if isinstance(explanation, str):
        console.note(f"{table['id'].iloc[0]}: {explanation}")
        raise typer.Exit(1)
    if output_format == "json":
        console.write_json(explanation.to_dict())
    else:
        print_explanation(explanation)


def print_explanation(e: Explanation) -> None:
    """Print the verdict, what the width is made of, the nearest labelled crystals and the newest atoms."""
    bounds, level = e.bounds, percent(e.bounds.level)
    console.say((bounds.formula, "bold"), (f"  {bounds.id}, {bounds.n_atoms} atoms", "dim"), wrap=True)
    interval = f"{bounds.lower_mev_per_atom:+.0f} to {bounds.upper_mev_per_atom:+.0f} meV/atom"
    console.say(("E_DFT − E_model  ", "dim"), (interval, "bold"), (f"  {level} % bounds", "dim"))
    if bounds.flags:
        console.say(("flags  ", "dim"), (", ".join(bounds.flags), "yellow"), wrap=True)
    console.say((e.verdict, "bold"), wrap=True)
    console.show(_width_sheet(e))
    if e.neighbours:
        console.show(_neighbours_sheet(e))
        usual = (
            ""
            if e.far_distance is None
            else f"; 95 % of its crystals have one of another composition within {e.far_distance:.2g}"
        )
        distance = "distance: root mean square difference of the model's features per atom, in standard deviations of"
        console.say((f"{distance} the head's data{usual}", "dim"), wrap=True)
    if e.atoms:
        atoms = Sheet("element", "site", "grade", "over threshold", numbers=["site", "grade", "over threshold"],
                      title="Atoms with the newest surroundings")  # fmt: skip
        for atom in e.atoms[:_N_ATOMS]:
            novel = (f"{atom.novelty:.2f}", "yellow" if atom.novelty > 1 else "")
            atoms.add(atom.element, str(atom.site), f"{atom.grade:.2f}", novel)
        console.show(atoms)
    for what, unseen in (("elements", e.unseen_elements), ("pairs of elements", e.unseen_pairs)):
        if unseen:
            console.say((f"{what} that no structure of the fit had: ", "dim"), ", ".join(unseen), wrap=True)


def print_why(e: Explanation) -> None:
    """Print an explanation in two lines: the verdict and the nearest labelled crystal."""
    console.say(("why  ", "dim"), e.verdict, wrap=True)
    nearest = e.neighbours[0]
    inside = {None: "", True: ", inside its bounds", False: ", outside its bounds"}[nearest.inside]
    console.say(
        ("nearest  ", "dim"),
        f"{nearest.formula} ({nearest.id}) at {nearest.distance:.2f}: "
        f"error {round(nearest.error_mev_per_atom):+d} meV/atom{inside}",
        wrap=True,
    )


def _width_sheet(e: Explanation) -> Sheet:
    sheet = Sheet("what", "number", numbers=["number"], title="What the width is made of", headed=False)
    if e.typical_sigma_mev_per_atom is not None:
        sheet.add("typical σ of the head's data", f"{e.typical_sigma_mev_per_atom:.1f} meV/atom")
    for part in e.contributions:
        sheet.add((f"  {part.name}", "dim"), f"× {part.factor:.3f}         ")
    sheet.add("σ of this structure", f"{e.sigma_mev_per_atom:.1f} meV/atom")
    sheet.add(
        (f"  calibration at {percent(e.bounds.level)} %", "dim"), f"× {e.conformal_factor:.3f}         "
    )
    sheet.add("half-width of the bounds", (f"{e.half_width_mev_per_atom:.1f} meV/atom", "bold"))
    return sheet


def _neighbours_sheet(e: Explanation) -> Sheet:
    numbers = ["distance", "error (meV/atom)"]
    inside = f"inside its {percent(e.bounds.level)} % bounds"
    sheet = Sheet("id", "formula", *numbers, inside, numbers=numbers,
                  title="Nearest labelled crystals of the head's data")  # fmt: skip
    for row in e.neighbours:
        told: dict[bool | None, Part] = {None: ("not measured", "dim"), True: "yes", False: ("no", "red")}
        sheet.add(
            row.id,
            row.formula,
            f"{row.distance:.2f}",
            f"{round(row.error_mev_per_atom):+d}",
            told[row.inside],
        )
    return sheet
