"""The benchmark's results as plain text."""

from __future__ import annotations

import argparse
import os
from typing import Any

COLUMNS = [
    ("", "<"),
    ("contestant", "<"),
    ("dtype", "<"),
    ("processes", "<"),
    ("batch", ">"),
    ("atoms/s", ">"),
    ("slowest..fastest", ">"),
    ("structures/s", ">"),
    ("atoms/core-s", ">"),
    ("x (a)", ">"),
    ("x (a) per core-s", ">"),
    ("ours x this", ">"),
    ("peak MB", ">"),
    ("max |dE| meV/atom", ">"),
]


def print_title(name: str, result: dict[str, Any], args: argparse.Namespace) -> None:
    source = args.crystals or "the shipped examples, repeated and perturbed"
    print(
        f"\n== {name}, {result['parameters']:,} parameters: {result['crystals']} crystals of {source}, {result['atoms']} atoms, "
        f"{result['edges'] / result['atoms']:.1f} edges per atom; {args.cores} cores, load {os.getloadavg()[0]:.1f}\n"
        f"   medians over {args.rounds} rounds; (a) and (b) run a share of 1/{args.rounds} in each, the others all crystals",
        flush=True,
    )


def print_rows(rows: list[dict[str, Any]]) -> None:
    """One line for each contestant, then where its time goes."""
    lines = [[name for name, _ in COLUMNS], *map(cells, rows)]
    widths = [max(len(line[k]) for line in lines if len(line) == len(COLUMNS)) for k in range(len(COLUMNS))]
    for line in lines:
        aligned = [
            f"{cell:{side}{width}}" for cell, (_, side), width in zip(line, COLUMNS, widths, strict=False)
        ]
        print("  ".join(aligned).rstrip())
    print("\nshare of time per stage")
    for row in rows:
        if row["reason"] is None:
            shares = ", ".join(f"{stage} {share:.0%}" for stage, share in row["stages"].items())
            print(f"{row['letter']}  {row['label']}, {row['dtype']}: {shares}")


def cells(row: dict[str, Any]) -> list[str]:
    start = [row["letter"], row["label"], row["dtype"]]
    if row["reason"] is not None:
        return [*start, f"did not run: {row['reason']}"]
    rates = row["atoms_per_s_by_round"]
    return [
        *start,
        f"{row['processes']} of {row['threads']} thread{'s' if row['threads'] > 1 else ''}",
        f"{row['batch_atoms']} atoms" if row["batch_atoms"] else "-",
        f"{row['atoms_per_s']:.0f}",
        f"{min(rates):.0f}..{max(rates):.0f}",
        f"{row['structures_per_s']:.1f}",
        f"{row['atoms_per_core_s']:.0f}",
        times(row["times_a"]),
        times(row["times_a_per_core_s"]),
        times(row["ours_times_this"]),
        f"{row['peak_mb']:.0f}",
        f"{row['max_energy_difference_mev_per_atom']:.1e}",
    ]


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
