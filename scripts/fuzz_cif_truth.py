"""Write CIFs of known crystals in many spellings, and damaged ones, and count what the reader makes of them.

    python scripts/fuzz_cif_truth.py --n 1500 --seed 1

The crystals have random sites in the 564 settings that gemmi tabulates; pymatgen expands them, so that the
truth does not come from the reader. A spelling is right if it is read as that crystal and weak if it is refused; a damage, which
leaves the file in contradiction with itself, is right if it is refused or the crystal is read all the same. Anything
else is silently wrong, and the exit code is 1.
"""

# ruff: noqa: ARG001  every damage takes the same arguments
from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from pymatgen.core import Composition, Element, Lattice
from pymatgen.core.operations import SymmOp

ELEMENTS = ("Na", "Cl", "O", "Si", "Fe", "Cu", "C", "Ca", "N", "S", "H", "Ho", "Co", "Zn", "P", "K")
SPECIAL = (0.0, 0.25, 0.5, 0.75, 1 / 3, 2 / 3, 0.125, 1 / 6)


class Crystal:
    """A random crystal: group, cell, asymmetric unit, and what pymatgen expands it to."""

    def __init__(self, rng: np.random.Generator) -> None:
        table = list(gemmi.spacegroup_table())
        while True:
            self.group = table[int(rng.integers(len(table)))]
            self.cell = _cell(self.group, rng)
            operations = list(self.group.operations())
            self.operations = [op.triplet() for op in operations]
            ops = [SymmOp.from_xyz_str(t) for t in self.operations]
            lattice = Lattice.from_parameters(*self.cell)
            self.sites: list[tuple[str, list[float], int]] = []
            atoms: list[tuple[str, np.ndarray]] = []
            for symbol in rng.permutation(ELEMENTS)[: int(rng.integers(1, 4))]:
                point = [
                    float(rng.choice(SPECIAL)) if rng.random() < 0.6 else round(float(rng.random()), 4)
                    for _ in "xyz"
                ]
                orbit: list[np.ndarray] = []
                for op in ops:
                    image = op.operate(point) % 1.0
                    if not orbit or lattice.get_all_distances([image], orbit).min() > 1e-3:
                        orbit.append(image)
                self.sites.append((str(symbol), point, len(orbit)))
                atoms += [(str(symbol), image) for image in orbit]
            if len(atoms) > 200:
                continue
            points = [point for _, point in atoms]
            distances = lattice.get_all_distances(points, points)
            np.fill_diagonal(distances, 9.0)
            if distances.min() < 0.9:
                continue
            self.symbols = [symbol for symbol, _ in atoms]
            self.points, self.lattice = np.array(points), lattice
            composition = Composition(Counter(self.symbols))
            self.formula, self.z = composition.get_integer_formula_and_factor()
            self.counts = {str(e): round(n / self.z) for e, n in composition.items()}
            return

    def agrees(self, crystal: Any) -> bool:
        """Tell whether what was read is this crystal: cell volume, every atom on its place."""
        numbers = crystal.numbers.tolist()
        want = [Element(s).Z for s in self.symbols]
        if Counter(numbers) != Counter(want) or abs(crystal.volume / self.lattice.volume - 1) > 0.02:
            return False
        read = np.linalg.solve(crystal.cell.T, crystal.positions.T).T
        far = self.lattice.get_all_distances(read, self.points)
        far[np.array(numbers)[:, None] != np.array(want)[None]] = 9.0
        return bool(far.min(axis=0).max() < 0.3 and far.min(axis=1).max() < 0.3)


def _cell(group: gemmi.SpaceGroup, rng: np.random.Generator) -> list[float]:
    """Return a cell that the group's operations leave as it is: a random metric, averaged over the group."""
    lengths = rng.uniform(4, 9, 3)
    matrix = np.diag(lengths) + rng.uniform(-1.2, 1.2, (3, 3)) * (rng.random() < 0.8)
    metric = matrix @ matrix.T
    rotations = [np.array(op.rot) / 24 for op in group.operations()]
    metric = np.mean([r.T @ metric @ r for r in rotations], axis=0)
    a = np.sqrt(np.diag(metric))
    angles = [np.degrees(np.arccos(metric[i, j] / (a[i] * a[j]))) for i, j in ((1, 2), (0, 2), (0, 1))]
    return [round(float(x), 4) for x in (*a, *angles)]


NAMES = ("hm", "compact", "xhm", "sub", "paren", "tilde", "upper", "number", "hall")


def spelt(crystal: Crystal, rng: np.random.Generator) -> dict[str, Any]:
    """Return a random way to write a crystal, as parts that :func:`text_of` joins."""
    digits = int(rng.choice([4, 5, 6, 6]))
    listed = rng.random() < 0.55
    standard = crystal.group.is_reference_setting()
    parts: dict[str, Any] = {
        "case": str(rng.choice(["plain", "plain", "upper", "title", "dotted"])),
        "operations": list(rng.permutation(crystal.operations)) if listed else [],
        "operation_tag": str(rng.choice(["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"])),
        "names": [] if listed and rng.random() < 0.4 else [str(rng.choice(NAMES))],
        "labels": str(rng.choice(["both", "both", "types", "labels", "charges"])),
        "formula": dict(crystal.counts) if rng.random() < 0.7 or not listed else None,
        "z": crystal.z if rng.random() < 0.6 or not listed else None,
        "volume": crystal.lattice.volume if rng.random() < 0.4 else None,
        "multiplicity": [m for _, _, m in crystal.sites] if rng.random() < 0.3 else None,
        "occupancy": [str(rng.choice(["1", "1.0", "1.000(2)", ".", "0.9999"]))] * len(crystal.sites)
        if rng.random() < 0.3 else None,
        "sites": [(s, [f"{x:.{digits}f}" for x in p]) for s, p, _ in crystal.sites],
        "cell": list(crystal.cell),
        "encoding": str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "latin-1", "minus", "crlf", "cr", "ctrlz"])),
        "order": int(rng.integers(4)),
        "standard": standard,
    }  # fmt: skip
    return parts


def name_line(crystal: Crystal, kind: str) -> str:
    """Return the lines that name the group in one of the spellings of :data:`NAMES`."""
    group, tag = crystal.group, "_symmetry_space_group_name_H-M"
    symbol = group.hm
    if kind == "number":  # a number alone says the standard setting, so that others need their symbol
        if not group.is_reference_setting():
            return f"{tag} '{group.xhm()}'\n_symmetry_Int_Tables_number {group.number}"
        return f"_space_group_IT_number {group.number}"
    if kind == "hall":
        quote = '"' if "'" in group.hall else "'"
        return f"_symmetry_space_group_name_Hall {quote}{group.hall}{quote}" if '"' not in group.hall else (
            f"_symmetry_space_group_name_Hall '{group.hall}'")  # fmt: skip
    if kind == "xhm":
        symbol = group.xhm()
    else:
        screw = [str(p) for p in symbol.split()]
        signs = {"sub": "{}_{}", "paren": "{}({})", "tilde": "{}~{}~"}
        if kind in signs:
            screw = [
                signs[kind].format(p[0], p[1]) + p[2:]
                if len(p) > 1 and p[0] in "2346" and p[1] in "12345" and p[0] > p[1] else p
                for p in screw
            ]  # fmt: skip
        symbol = ("" if kind == "compact" else " ").join(screw)
        symbol = symbol.upper() if kind == "upper" else symbol
        extension = group.ext.strip("\0 ")
        symbol += f" :{extension}" if extension else ""
    return f"{tag} '{symbol}'"


def text_of(crystal: Crystal, parts: dict[str, Any]) -> bytes:
    """Return the bytes of a CIF."""
    pieces = [
        "_audit_author 'Müller, Å'"
        if parts["encoding"] == "latin-1"
        else "_note\n;\ndata_of\n_cell_length_a 3\n;"
    ]
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    pieces.append("\n".join(f"_cell_{n} {v}" for n, v in zip(names, parts["cell"], strict=True)))
    pieces += [name_line(crystal, kind) if kind in NAMES else kind for kind in parts["names"]]
    if parts["formula"]:
        formula = " ".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(parts["formula"].items()))
        pieces.append(f"_chemical_formula_sum '{formula}'")
    if parts["z"]:
        pieces.append(f"_cell_formula_units_Z {parts['z']}")
    if parts["volume"]:
        pieces.append(f"_cell_volume {parts['volume']:.2f}(3)")
    if parts["operations"]:
        pieces.append(
            f"loop_\n{parts['operation_tag']}\n" + "\n".join(f"'{op}'" for op in parts["operations"])
        )
    columns = {
        "_atom_site_label": [f"{s}{i + 1}" for i, (s, _) in enumerate(parts["sites"])],
        "_atom_site_type_symbol": [
            s + ("2+" if parts["labels"] == "charges" else "") for s, _ in parts["sites"]
        ],
    }
    columns.pop(
        {"types": "_atom_site_label", "labels": "_atom_site_type_symbol"}.get(parts["labels"], ""), None
    )
    columns |= {f"_atom_site_fract_{a}": [p[i] for _, p in parts["sites"]] for i, a in enumerate("xyz")}
    if parts["multiplicity"]:
        columns["_atom_site_symmetry_multiplicity"] = [str(m) for m in parts["multiplicity"]]
    if parts["occupancy"]:
        columns["_atom_site_occupancy"] = parts["occupancy"]
    columns |= parts.get("columns", {})
    rows = zip(*columns.values(), strict=True)
    sites = "loop_\n" + "\n".join(columns) + "\n" + "\n".join(" ".join(row) for row in rows)
    pieces.insert(1 + parts["order"] % len(pieces), sites)
    body = "\n".join(pieces) + "\n"
    if parts["case"] == "dotted":
        for category in ("_cell", "_atom_site", "_space_group_symop", "_symmetry_equiv"):
            body = body.replace(f"\n{category}_", f"\n{category}.")
    elif parts["case"] in ("upper", "title"):
        lines = body.split("\n")
        change = str.upper if parts["case"] == "upper" else str.title
        body = "\n".join(
            " ".join([change(line.split(" ")[0]), *line.split(" ")[1:]])
            if line[:1] == "_" or line == "loop_"
            else line
            for line in lines
        )
    text = ("DATA_x\n" if parts["case"] == "upper" else "data_x\n") + body
    kind = parts["encoding"]
    if kind == "minus":
        return text.replace("-", "\u2212").replace("H\u2212M", "H-M").encode()
    if kind in ("crlf", "cr"):
        return text.replace("\n", "\r\n" if kind == "crlf" else "\r").encode()
    return text.encode() + b"\x1a" if kind == "ctrlz" else text.encode(kind)


def _more_in_formula(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts["formula"] = {**crystal.counts, "H": crystal.counts.get("H", 0) + 4}


def _other_ratio(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    first = next(iter(crystal.counts))
    parts["formula"] = {**crystal.counts, first: crystal.counts[first] + 1}
    if len(crystal.counts) == 1:
        parts["formula"] = {**crystal.counts, "Xe": 1}


def _wrong_z(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(formula=dict(crystal.counts), z=crystal.z * int(rng.integers(2, 4)))


def _operations_removed(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    keep = max(1, int(len(crystal.operations) * rng.uniform(0.2, 0.9)))
    parts.update(operations=list(rng.permutation(crystal.operations))[:keep], names=["xhm"], formula=dict(crystal.counts),
                 z=crystal.z)  # fmt: skip


def _identity_only(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(
        operations=["x,y,z"], names=[str(rng.choice(["xhm", "hm", "number", "hall"]))], formula=None, z=None
    )


def _no_symmetry(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(operations=[], names=[], formula=dict(crystal.counts), z=crystal.z)


def _unknown_name(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(operations=[], names=["_symmetry_space_group_name_H-M 'Q 1 5/q x'"])


def _other_group(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    others = [g for g in gemmi.spacegroup_table() if g.number != crystal.group.number]
    other = others[int(rng.integers(len(others)))]
    parts.update(names=[f"_space_group_name_H-M_alt '{other.xhm()}'"], operations=list(crystal.operations))


def _two_names(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    other = int(rng.integers(1, 231))
    other = other if other != crystal.group.number else other % 230 + 1
    parts.update(names=["xhm", f"_symmetry_Int_Tables_number {other}"])


def _partial(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts["occupancy"] = [str(rng.choice(["0.5", "0.25(2)", "0.9", "4", "-1"]))] + ["1"] * (
        len(parts["sites"]) - 1
    )


def _alternatives(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    symbol, point = parts["sites"][0]
    moved = [f"{float(point[0]) + 0.1:.4f}", *point[1:]]
    parts.update(sites=[*parts["sites"], (symbol, moved)], multiplicity=None, occupancy=None)
    parts["columns"] = {"_atom_site_disorder_group": ["1", *["."] * (len(parts["sites"]) - 2), "2"]}


def _wrong_volume(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts["volume"] = crystal.lattice.volume * float(rng.choice([0.5, 0.9, 1.05, 2.0]))


def _wrong_multiplicity(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts["multiplicity"] = [m + 1 if m < 5 else m - 1 for _, _, m in crystal.sites]


def _wrong_metric(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts["cell"] = [crystal.cell[0] * 1.3, *crystal.cell[1:]]
    parts.update(formula=dict(crystal.counts), z=crystal.z, volume=crystal.lattice.volume)


def _dummy_type(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(labels="both")
    parts["columns"] = {"_atom_site_type_symbol": [str(rng.choice(["X", "Vac", "Na/K", "OH", "0.5Na+0.5K", "M"])),
                                                   *[s for s, _ in parts["sites"][1:]]]}  # fmt: skip


def _site_removed(crystal: Crystal, parts: dict[str, Any], rng: np.random.Generator) -> None:
    parts.update(formula=dict(crystal.counts), multiplicity=None, occupancy=None)
    parts["sites"] = parts["sites"][1:] or [("Xe", ["0", "0", "0"])]


DAMAGES = (_more_in_formula, _other_ratio, _wrong_z, _operations_removed, _identity_only, _no_symmetry, _unknown_name,
           _other_group, _two_names, _partial, _alternatives, _wrong_volume, _wrong_multiplicity, _wrong_metric,
           _dummy_type, _site_removed)  # fmt: skip


def main() -> int:
    """Write, read, count."""
    from mace_bounds.structures import read

    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files that were not right")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    counts: Counter[tuple[str, str]] = Counter()
    path = arguments.out / "now.cif"
    for index in range(arguments.n):
        crystal = Crystal(rng)
        parts = spelt(crystal, rng)
        damage = DAMAGES[int(rng.integers(len(DAMAGES)))] if rng.random() < 0.5 else None
        if damage is not None:
            damage(crystal, parts, rng)
        content = text_of(crystal, parts)
        path.write_bytes(content)
        (record,) = read(path, max_atoms=500)
        same = record.crystal is not None and crystal.agrees(record.crystal)
        verdict = "right" if same or (damage and record.reason) else "weak" if record.reason else "wrong"
        kind = damage.__name__.strip("_") if damage else "spelling"
        counts[kind, verdict] += 1
        if verdict != "right":
            (arguments.out / f"{verdict}-{index}-{kind}.cif").write_bytes(content)
            print(
                f"{verdict} {index} {kind} {crystal.group.xhm()}: {record.reason or record.crystal.formula} {record.flags}"
            )
    path.unlink()
    for (kind, verdict), n in sorted(counts.items()):
        print(f"{n:5d} {verdict:6s} {kind}")
    total = Counter()  # type: ignore[var-annotated]
    for (_, verdict), n in counts.items():
        total[verdict] += n
    print(f"{arguments.n} CIFs (seed {arguments.seed}): {dict(total)}")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
