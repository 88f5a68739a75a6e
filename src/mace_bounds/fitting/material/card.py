"""The card of a head of one chemistry."""

from __future__ import annotations

from mace_bounds.calibration import ELLIPSOID, CalibratedHead, Material
from mace_bounds.fitting.text_tables import TextTable, share_text
from mace_bounds.levels import percent
from mace_bounds.screen import markdown_text, visible


def material_card(name: str, head: CalibratedHead) -> str:
    """Write the README of a head of one chemistry in Markdown.

    Parameters
    ----------
    name : str
        Name of the head.
    head : CalibratedHead
        With the provenance that :func:`mace_bounds.fitting.fit_material` gives it.
    """
    about, identity, material = head.provenance, head.identity, head.material
    assert material is not None
    settings, scales = about["settings"], about["row_scales"]
    residuals = ", ".join(
        f"{kind} {settings['energy_weight' if kind == 'energies' else f'{kind}_weight'] ** 0.5 / scale:.3g} {unit}"
        for (kind, scale), unit in zip(scales.items(), ("eV/atom", "eV/Å", "eV/Å³"), strict=False)
    )
    parts = [
        f"# {markdown_text(name)}: {material.symbols} with error bars, on features of {markdown_text(identity.model)}",
        f"A head of mace-bounds for **{material.symbols} alone**: the readout of the frozen model "
        f"**{markdown_text(identity.model)}** (SHA-256 of its tensors `{identity.model_digest}`, "
        f"{len(identity.columns)} features) refitted to energies, forces and stress of one chemistry. The refitted "
        f"energy is used. It is relative to {markdown_text(material.reference)}; structures with other elements "
        "are refused.",
        "## Measured on frames that took no part",
        f"{about['rows']['test']:,} frames, chosen by the hash of their ids. Frames of one family resemble each other, "
        "so this is what holds for more frames of the same families; for structures of other kinds see the next table.",
        families(head).markdown(),
        "## Families that took no part",
        "Each family in turn was left out of the fit, and its frames bounded by the others:",
        families_left_out(head).markdown(),
        f"Deviations of draws are multiplied by {material.stretch:.2f}: with this factor, or a smaller one, 95 % of "
        "the frames of the worst of these families are within 1.96 standard deviations.",
        *_given("## How these numbers were developed", about.get("development", "")),
        *_given("## Elsewhere", about.get("comparison", "")),
        "## Data and fit",
        "\n".join(
            f"- {key}: {value}"
            for key, value in {
                "Families": ", ".join(f"{markdown_text(k)} ({n:,})" for k, n in about["sources"].items()),
                "Frames": ", ".join(f"{k} {n:,}" for k, n in about["rows"].items()),
                "Weights of energies, forces, stress": ", ".join(
                    f"{settings[f'{kind}_weight']:g}" for kind in ("energy", "forces", "stress")
                )
                + f", each after division by its root mean square residual ({residuals})",
                "Forces and stress": f"of about {settings['atoms_per_family']:,} atoms of every family",
                "Envelope": "the box of all POPS corrections, unclipped (`support_lower/upper_mev_per_atom`)",
                "Draws": "uniform on an ellipsoid"
                if material.draws == ELLIPSOID
                else "uniform in the box, as the ellipsoid was wider than the envelope",
                "Intervals": "split conformal on errors of folds of frames, for each family by itself",
                "Intervals of unknown families": _unknown(head, material),
                "Novelty": "structures and single atoms graded" if head.wants_atoms else "structures graded",
                "Seed": str(settings["seed"]),
                "Data fingerprint": f"`{about['data_sha256']}`",
                "Notes": about["notes"],
                "Licence": about["licence"] or "not stated; that of the data applies",
                "Made with": f"mace-bounds {about['versions']['mace-bounds']}",
            }.items()
            if value
        ),
        "## Use",
        f"```sh\nmace-bounds score FILE.cif --head PATH/TO/{visible(name)}\n```",
        "Bounds are of the total energy of a cell. Draws of the weights, for properties, come from "
        "`BoundsPredictor(head=...).coefficients()`; their least and largest values are no bounds.",
    ]
    return "\n\n".join(parts) + "\n"


def _unknown(head: CalibratedHead, material: Material) -> str:
    if not material.left_out:
        return "the widest that any family asks for: too few families to leave out"
    factors = ", ".join(
        f"{factor:.2f} at {percent(level)} %"
        for level, factor in zip(head.levels, material.left_out, strict=True)
    )
    return (
        f"standard deviation of the draws before they are stretched, times {factors}: what the worst of the families "
        "asks for that were left out in turn; flagged `unknown_family`"
    )


def families(head: CalibratedHead) -> TextTable:
    """What was measured of each family, on frames that took no part."""
    columns = ("family", "fitted", "measured", "MAE, meV/atom", "MAE of forces, eV/Å", "in 95 %", "width, meV/atom",
               "in envelope")  # fmt: skip
    lines = [
        (
            str(row["family"]),
            f"{row['n_fit']:,}",
            f"{row['n_test']:,}",
            _number(row["mae_mev_per_atom"], ".1f"),
            _number(row["mae_forces_ev_per_a"], ".3f"),
            share_text(row["covered"]),
            _number(row["median_width_mev_per_atom"], ".0f"),
            share_text(row["in_envelope"]),
        )
        for row in head.provenance["families"]
    ]
    return TextTable(columns, lines, texts=("family",))


def families_left_out(head: CalibratedHead) -> TextTable:
    """What was measured of families left out."""
    columns = ("family", "frames", "MAE, meV/atom", "mean abs(error) / std", "factor for 95 %", "in envelope")
    lines = [
        (
            str(row["family"]),
            f"{row['n']:,}",
            _number(row["mae_mev_per_atom"], ".1f"),
            _number(row["mean_error_over_std"], ".2f"),
            _number(row["stretch"], ".2f"),
            share_text(row["in_envelope"]),
        )
        for row in head.provenance["left_out_families"]
    ]
    return TextTable(columns, lines, texts=("family",))


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _given(title: str, text: str) -> list[str]:
    return [title, text] if text else []
