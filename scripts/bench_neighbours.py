"""Compare neighbour-list libraries on the crystals of one or more sources: the same edges, and how fast.

    python scripts/bench_neighbours.py SOURCE... [--n 300] [--cutoffs 5 6] [--repeats 5]

Every library that is installed must give the edges (i, j, S) that matscipy gives, on these crystals and on hard
cells; then all are timed in turn on one thread, and the table has the median CPU time per crystal and its ratio to the
fastest.  Libraries beside those the package needs: ``pip install vesin torch-nl nvalchemi-toolkit-ops``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from numpy.typing import NDArray

from helpers.hard_cells import HARD_CELLS
from mace_bounds import read
from mace_bounds.backbones.graph import build_graph
from mace_bounds.structures import Crystal

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]  # i, j, S: r_j + S·cell - r_i
Library = Callable[[Sequence[Crystal], float], Iterable[object]]
EDGE_TOLERANCE_A = 1e-6  # an edge this close to the cutoff may be in or out


def matscipy() -> Library:
    from matscipy.neighbours import neighbour_list

    return lambda crystals, cutoff: [
        neighbour_list("ijS", pbc=[True] * 3, cell=c.cell, positions=c.positions, cutoff=cutoff)
        for c in crystals
    ]


def ase() -> Library:
    from ase.neighborlist import primitive_neighbor_list

    return lambda crystals, cutoff: [
        primitive_neighbor_list("ijS", [True] * 3, c.cell, c.positions, cutoff) for c in crystals
    ]


def pymatgen() -> Library:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    periodic = np.ones(3, dtype=np.int64)

    def edges(crystal: Crystal, cutoff: float) -> Edges:
        x = crystal.positions
        i, j, images, distances = find_points_in_spheres(x, x, cutoff, periodic, crystal.cell, 0.0)
        good = distances > 1e-3  # the atom itself is among its neighbours
        return i[good], j[good], images[good]

    return lambda crystals, cutoff: [edges(c, cutoff) for c in crystals]


def vesin() -> Library:
    from vesin import NeighborList

    def edges(crystals: Sequence[Crystal], cutoff: float) -> list[object]:
        search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
        return [search.compute(c.positions, c.cell, True, "ijS") for c in crystals]

    return edges


def torch_nl() -> Library:
    import torch
    from torch_nl import compute_neighborlist

    def edges(crystals: Sequence[Crystal], cutoff: float) -> list[Edges]:
        out: list[Edges] = []
        for c in crystals:
            batch = torch.zeros(len(c.numbers), dtype=torch.int64)
            x, cell = torch.from_numpy(c.positions), torch.from_numpy(c.cell)
            pairs, _, shifts = compute_neighborlist(cutoff, x, cell, torch.ones(3, dtype=torch.bool), batch)
            out.append((pairs[0].numpy(), pairs[1].numpy(), shifts.numpy()))
        return out

    return edges


def nvalchemi() -> Library:
    import torch
    from nvalchemiops.torch.neighbors import neighbor_list

    def edges(crystals: Sequence[Crystal], cutoff: float) -> list[Edges]:
        sizes = [len(c.numbers) for c in crystals]
        densest = max(len(c.numbers) / c.volume for c in crystals)
        ends = torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32)
        pairs, _, shifts = neighbor_list(
            torch.from_numpy(np.concatenate([c.positions for c in crystals])),
            cutoff,
            cell=torch.from_numpy(np.stack([c.cell for c in crystals])),
            pbc=torch.ones((len(crystals), 3), dtype=torch.bool),
            batch_idx=torch.repeat_interleave(
                torch.arange(len(sizes), dtype=torch.int32), torch.tensor(sizes)
            ),
            batch_ptr=ends,
            return_neighbor_list=True,
            max_neighbors=60 + int(1.5 * densest * 4.19 * cutoff**3),  # room for each atom's neighbours
        )
        i, j, images = pairs[0].numpy(), pairs[1].numpy(), shifts.numpy()
        crystal = np.repeat(np.arange(len(sizes)), sizes)[i]
        first = ends.numpy()
        return [(i[m] - a, j[m] - a, images[m]) for k, a in enumerate(first[:-1]) for m in [crystal == k]]

    return edges


def mace_bounds() -> Library:
    return lambda crystals, cutoff: [build_graph(c, cutoff) for c in crystals]


LIBRARIES = (matscipy, ase, pymatgen, vesin, torch_nl, nvalchemi)


def edge_set(crystal: Crystal, edges: Edges, cutoff: float) -> set[tuple[int, int, int, int, int]]:
    """Return the edges as a set, without those as long as the cutoff."""
    i, j, images = (np.asarray(part) for part in edges)
    vectors = crystal.positions[j] - crystal.positions[i] + images @ crystal.cell
    inner = np.linalg.norm(vectors, axis=1) < cutoff - EDGE_TOLERANCE_A
    rows = np.column_stack([i, j, np.rint(images)])[inner].astype(int)
    found = {(*row,) for row in rows.tolist()}
    if len(found) != len(rows):
        raise SystemExit("an edge was given twice")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--n", type=int, default=300, help="crystals per source, spread over it")
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[5.0, 6.0])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ready: dict[str, Library] = {}
    for library in LIBRARIES:
        try:
            ready[library.__name__] = library()
        except ImportError as error:
            print(f"{library.__name__}: left out ({error})")
    # pymatgen's grid spans all positions as they are: those far outside would take tens of gigabytes
    groups = {"hard cells": [c for name, c in HARD_CELLS.items() if not name.startswith("far")]}
    for source in args.sources:
        crystals = [r.crystal for r in islice(read(source), 5_000) if r.crystal is not None]
        groups[source.rsplit("/", 1)[-1]] = crystals[:: max(1, len(crystals) // args.n)][: args.n]
    for cutoff in args.cutoffs:
        for name, crystals in groups.items():
            compare(name, crystals, cutoff, ready, args.repeats)


def compare(
    name: str, crystals: list[Crystal], cutoff: float, libraries: dict[str, Library], repeats: int
) -> None:
    """Check that all libraries agree with the first, time them, and print the table."""
    reference: list[set[tuple[int, ...]]] = []
    different = dict.fromkeys(libraries, 0)
    for library, lists in libraries.items():
        sets = [edge_set(c, e, cutoff) for c, e in zip(crystals, lists(crystals, cutoff), strict=True)]
        reference = reference or sets
        different[library] = sum(a != b for a, b in zip(sets, reference, strict=True))
    timed = libraries | {"this package": mace_bounds()}
    times: dict[str, list[float]] = {library: [] for library in timed}
    for _ in range(repeats):
        for library, lists in timed.items():
            start = time.process_time()
            lists(crystals, cutoff)
            times[library].append((time.process_time() - start) / len(crystals))
    medians = {library: float(np.median(values)) for library, values in times.items()}
    atoms = np.mean([len(c.numbers) for c in crystals])
    edges = np.mean([len(s) for s in reference])
    print(
        f"\n{name}, cutoff {cutoff:g} Å: {len(crystals)} crystals, mean {atoms:.1f} atoms, {edges:.0f} edges"
    )
    for library, median in sorted(medians.items(), key=lambda item: item[1]):
        wrong = different.get(library, 0)
        said = "" if library == "this package" else f"{wrong} crystals differ" if wrong else "same edges"
        print(f"  {library:14s}{1e3 * median:9.3f} ms  x{median / min(medians.values()):6.2f}  {said}")


if __name__ == "__main__":
    main()
